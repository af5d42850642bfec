package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"

	"github.com/tailscale/hujson"

	"osx-builder/vm"
)

// curlType is the media type that curl -d sends by default.
const curlType = "application/x-www-form-urlencoded"

// maxBrackets is the largest number of opening brackets in a body. It limits the nesting before the body is parsed. A
// valid request has two or three.
const maxBrackets = 1000

// decode reads a request's body into v, a pointer to a struct. It accepts trailing commas and comments. It refuses a
// second document. It returns the fields that it cannot read, because they are unknown or have a wrong type.
func decode(w http.ResponseWriter, r *http.Request, v any) (invalid []*vm.Error, err error) {
	if err := mediaType(r.Header.Get("Content-Type")); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &vm.Error{Code: codeBody, Message: fmt.Sprintf("the body is longer than %d bytes", large.Limit)}
	}
	if err != nil {
		return nil, &vm.Error{Code: codeJSON, Message: "reading the body: " + err.Error(), Err: err}
	}
	plain, err := standardize(body)
	if err != nil {
		return nil, err
	}
	f := fieldDecoder{root: reflect.TypeOf(v).Elem()}
	if err := f.object("", plain, reflect.ValueOf(v).Elem()); err != nil {
		return nil, err
	}
	return f.invalid, nil
}

func mediaType(header string) error {
	if header == "" {
		return nil
	}
	t, _, err := mime.ParseMediaType(header)
	if err == nil && (t == "application/json" || t == curlType) {
		return nil
	}
	return &vm.Error{Code: codeMediaType, Message: fmt.Sprintf("the body's Content-Type is %s; it must be application/json", quote(header))}
}

// standardize converts a body with comments and trailing commas to strict JSON.
func standardize(body []byte) ([]byte, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, &vm.Error{Code: codeJSON, Message: "the body is empty; it must be a JSON object"}
	}
	if bytes.Count(body, []byte("["))+bytes.Count(body, []byte("{")) > maxBrackets {
		return nil, &vm.Error{Code: codeJSON, Message: fmt.Sprintf("the body has more than %d brackets; it must be one flat JSON object", maxBrackets)}
	}
	plain, err := hujson.Standardize(body)
	if err == nil {
		return plain, nil
	}
	reason := truncate(strings.TrimPrefix(err.Error(), "hujson: "))
	if strings.Contains(reason, "after top-level value") {
		return nil, &vm.Error{Code: codeTrailing, Message: "the body must be a single JSON object: " + reason, Err: err}
	}
	return nil, &vm.Error{Code: codeJSON, Message: "the body is not JSON: " + reason, Err: err}
}

// idempotencyKey returns the Idempotency-Key header, which has 1 to 255 printable characters.
func idempotencyKey(h http.Header) (string, error) {
	values := h.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	printable := !strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c > '~' })
	if len(values) > 1 || key == "" || len(key) > maxKey || !printable {
		return "", &vm.Error{
			Code: vm.CodeInvalidField, Field: "Idempotency-Key",
			Message: fmt.Sprintf("Idempotency-Key is %s; it must be one header of 1 to %d printable ASCII characters", quote(strings.Join(values, ", ")), maxKey),
		}
	}
	return key, nil
}

package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tailscale/hujson"

	"osx-builder/vm"
)

// curlType is the media type that curl -d sends by default.
const curlType = "application/x-www-form-urlencoded"

// maxBrackets is the largest number of opening brackets in a body. It limits the nesting before the body is parsed. A
// valid request has two or three.
const maxBrackets = 1000

// decode reads a request's body into v, a pointer to a struct. It accepts trailing commas and comments. It refuses
// unknown fields and a second document.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	if err := mediaType(r.Header.Get("Content-Type")); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &vm.Error{Code: codeBody, Message: fmt.Sprintf("the body is longer than %d bytes", large.Limit)}
	}
	if err != nil {
		return &vm.Error{Code: codeJSON, Message: "reading the body: " + err.Error(), Err: err}
	}
	plain, err := standardize(body)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(plain))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return decodeError(err, reflect.TypeOf(v).Elem())
	}
	return nil
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

// decodeError converts an error of package json to an error that names the field. t is the type that was decoded.
func decodeError(err error, t reflect.Type) error {
	if known, ok := errors.AsType[*vm.Error](err); ok {
		return known
	}
	if typ, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if typ.Field == "" {
			return &vm.Error{Code: vm.CodeInvalidField, Message: fmt.Sprintf("the body is a JSON %s; it must be an object", truncate(typ.Value))}
		}
		return &vm.Error{
			Code: vm.CodeInvalidField, Field: typ.Field,
			Message: fmt.Sprintf("%s is a JSON %s; it must be %s", typ.Field, truncate(typ.Value), jsonType(typ.Type)),
		}
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		if unquoted, err := strconv.Unquote(name); err == nil {
			name = unquoted
		}
		return &vm.Error{
			Code: vm.CodeUnknownField, Field: truncate(name),
			Message: fmt.Sprintf("there is no field %s; the fields are %s", quote(name), strings.Join(fields(t, ""), ", ")),
		}
	}
	return &vm.Error{Code: codeJSON, Message: "the body is not JSON: " + truncate(err.Error()), Err: err}
}

// jsonType names the JSON type of a Go type.
func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
	case reflect.Struct:
		return "an object"
	case reflect.Slice:
		return "a list"
	default:
		return "a string"
	}
}

// fields lists the JSON names of a struct's fields.
func fields(t reflect.Type, prefix string) []string {
	var names []string
	for i := range t.NumField() {
		f := t.Field(i)
		name := prefix + f.Tag.Get("json")
		if f.Type.Kind() == reflect.Struct {
			names = append(names, fields(f.Type, name+".")...)
			continue
		}
		names = append(names, name)
	}
	return names
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

// waitTime returns the value of ?wait=, a duration such as 30s or a number of seconds.
func waitTime(r *http.Request) (time.Duration, error) {
	text := r.URL.Query().Get("wait")
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil || d < 0 || d > maxWait {
		return 0, &vm.Error{
			Code: vm.CodeInvalidField, Field: "wait",
			Message: fmt.Sprintf("wait is %s; it must be a duration such as 30s, at most 10m", quote(text)),
		}
	}
	return d, nil
}

// flag returns the value of a parameter that is 0 or 1. If it is absent, flag returns false.
func flag(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, &vm.Error{Code: vm.CodeInvalidField, Field: name, Message: fmt.Sprintf("%s is %s; it must be 0 or 1", name, quote(text))}
	}
	return on, nil
}

// filter returns the values of ?phase= and ?status=.
func filter(r *http.Request) (f vm.Filter, err error) {
	q := r.URL.Query()
	f = vm.Filter{Phase: vm.Phase(q.Get("phase")), Status: vm.Power(q.Get("status"))}
	if f.Phase != "" && !slices.Contains(vm.Phases(), f.Phase) {
		return f, filterError("phase", f.Phase, vm.Phases())
	}
	if f.Status != "" && !slices.Contains(vm.Powers(), f.Status) {
		return f, filterError("status", f.Status, vm.Powers())
	}
	return f, nil
}

func filterError[T ~string](name string, got T, want []T) error {
	return &vm.Error{Code: vm.CodeInvalidField, Field: name, Message: fmt.Sprintf("%s is %s; it must be %s", name, quote(string(got)), oneOf(want))}
}

// oneOf lists the allowed values for a message.
func oneOf[T ~string](values []T) string {
	text := make([]string, len(values))
	for i, v := range values {
		text[i] = string(v)
	}
	return "one of " + strings.Join(text, ", ")
}

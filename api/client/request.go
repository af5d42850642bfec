package client

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	// answerTime is what an answer may take that the daemon has at hand.
	answerTime = time.Minute

	// maxAnswer bounds a document, in bytes: more than the largest list.
	maxAnswer = 256 << 20
)

// errInterrupted is what becomes of a request that the user gave up.
var errInterrupted = errors.New("interrupted")

// get asks for a document.
func (n *conn) get(ctx context.Context, path string) ([]byte, error) {
	return n.do(ctx, http.MethodGet, path, nil, nil)
}

// do sends a request and returns the document it is answered with.
func (n *conn) do(ctx context.Context, method, path string, body []byte, header http.Header) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	res, err := n.open(ctx, method, path, body, header)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, n.broken(ctx, err)
	}
	return b, nil
}

// open sends a request and returns the answer while it is still coming. An
// answer that tells of an error is one.
func (n *conn) open(ctx context.Context, method, path string, body []byte, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, n.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name := range header {
		req.Header.Set(name, header.Get(name))
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if n.token != "" {
		req.Header.Set("Authorization", "Bearer "+n.token)
	}
	res, err := n.http.Do(req)
	if err != nil {
		return nil, n.broken(ctx, err)
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20)) // what came of it tells enough
	r := &refusal{status: res.StatusCode}
	if json.Unmarshal(text, r) != nil || r.Code == "" {
		return nil, fmt.Errorf("what answers at %s is not osx-builder: %s %s: %s", n.name, method, path, res.Status)
	}
	return nil, r
}

// broken says why there is no answer.
func (n *conn) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("no answer from %s in time: %w", n.name, ctx.Err())
		}
		return errInterrupted
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the method and the URL
	}
	way := "is the daemon running? --host or OSX_BUILDER_HOST name another"
	if unknown := new(x509.UnknownAuthorityError); errors.As(err, unknown) {
		way = "--ca-cert names the certificate to trust"
	}
	return &failure{exitUnavailable, fmt.Errorf("no answer from %s: %w; %s", n.name, err, way)}
}

// vmPath is the path of a machine, or of what belongs to it.
func vmPath(id, rest string) string { return "/vms/" + url.PathEscape(id) + rest }

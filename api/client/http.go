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
	"strings"
	"time"
)

const (
	// answerTimeout is the longest time that an answer may take if the daemon does not have to wait for anything.
	answerTimeout = time.Minute

	// destroyTimeout is the longest time that destroying a machine may take. The daemon first waits until its other
	// work on the machine has stopped.
	destroyTimeout = 5 * time.Minute

	// powerTimeout is the longest time that a power action may take: as long as the daemon lets the hypervisor work.
	powerTimeout = 10 * time.Minute

	// maxAnswer is the largest document, in bytes. The largest list is smaller.
	maxAnswer = 256 << 20
)

// errInterrupted is returned if the user interrupts a request.
var errInterrupted = errors.New("interrupted")

// apiClient sends requests to a daemon.
type apiClient struct {
	name    string // the address as the user wrote it
	baseURL string // without a slash at the end
	token   string
	remote  bool // the daemon is on another host
	http    *http.Client
}

// get returns the document at path.
func (c *apiClient) get(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, http.MethodGet, path, nil, nil)
}

// do sends a request and returns the document in the answer.
func (c *apiClient) do(ctx context.Context, method, path string, body []byte, header http.Header) ([]byte, error) {
	return c.doWithin(ctx, answerTimeout, method, path, body, header)
}

// doWithin is do with another limit to the time that the answer takes.
func (c *apiClient) doWithin(ctx context.Context, limit time.Duration, method, path string, body []byte, header http.Header) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	res, err := c.open(ctx, method, path, body, header)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, c.requestError(ctx, err)
	}
	return b, nil
}

// stream copies the answer at path to w while it arrives.
func (c *apiClient) stream(ctx context.Context, path string, w io.Writer) error {
	res, err := c.open(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err = io.Copy(w, res.Body); err != nil && ctx.Err() != nil {
		return errInterrupted
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &exitError{exitUnavailable, fmt.Errorf("the connection to %s broke: %w", c.name, err)}
	}
	return err
}

// destroyVM destroys a machine. It returns when nothing of the machine is left.
func (c *apiClient) destroyVM(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, destroyTimeout)
	defer cancel()
	res, err := c.open(ctx, http.MethodDelete, vmPath(id, ""), nil, nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

func (c *apiClient) removeImage(ctx context.Context, checksum string) error {
	_, err := c.do(ctx, http.MethodDelete, "/images/"+url.PathEscape(checksum), nil, nil)
	return err
}

// open sends a request and returns the answer, whose body is still to be read. An answer with an error status is
// returned as an [*apiError].
func (c *apiClient) open(ctx context.Context, method, path string, body []byte, header http.Header) (*http.Response, error) {
	res, err := c.send(ctx, method, path, body, header)
	if err != nil || res.StatusCode < 300 {
		return res, err
	}
	defer res.Body.Close()
	return nil, c.statusError(res, method, path)
}

// send sends a request and returns the answer, whatever its status is.
func (c *apiClient) send(ctx context.Context, method, path string, body []byte, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.baseURL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name := range header {
		req.Header.Set(name, header.Get(name))
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.requestError(ctx, err)
	}
	return res, nil
}

// statusError returns the error in an answer.
func (c *apiClient) statusError(res *http.Response, method, path string) error {
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20)) // a partial body is handled below
	e := &apiError{status: res.StatusCode}
	if json.Unmarshal(text, e) != nil || e.Code == "" {
		path, _, _ = strings.Cut(path, "?")
		return fmt.Errorf("the server at %s is not osx-builder: %s %s returned %s", c.name, method, path, res.Status)
	}
	return e
}

// requestError explains why a request got no answer.
func (c *apiClient) requestError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("waiting for an answer from %s: %w", c.name, ctx.Err())
		}
		return errInterrupted
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the method and the URL
	}
	hint := "is the daemon running? use --host or OSX_BUILDER_HOST for another address"
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		hint = "use --ca-cert to trust its certificate"
	}
	return &exitError{exitUnavailable, fmt.Errorf("no answer from %s: %w; %s", c.name, err, hint)}
}

// vmPath returns the path of a machine, followed by rest.
func vmPath(id, rest string) string { return "/vms/" + url.PathEscape(id) + rest }

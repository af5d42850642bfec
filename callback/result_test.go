package callback_test

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"osx-builder/callback"
)

func TestPostStatus(t *testing.T) {
	for _, tc := range []struct {
		code  int
		after string
		want  callback.Result // Err aside
		text  string
	}{
		{200, "", callback.Result{Delivered: true}, ""},
		{202, "120", callback.Result{Delivered: true}, ""},
		{299, "", callback.Result{Delivered: true}, ""},
		{300, "", callback.Result{}, "redirects are not followed"},
		{302, "", callback.Result{}, "302 Found, and redirects are not followed"},
		{307, "7", callback.Result{RetryAfter: 7 * time.Second}, "redirects are not followed"},
		{404, "", callback.Result{}, "answered 404 Not Found"},
		{410, "", callback.Result{Gone: true}, "410 Gone: it wants no more attempts"},
		{429, "120", callback.Result{RetryAfter: 2 * time.Minute}, "429 Too Many Requests"},
		{503, "-5", callback.Result{}, "503 Service Unavailable"},
		{503, "soon", callback.Result{}, "503"},
		{503, "999999999999", callback.Result{RetryAfter: callback.Lifetime}, "503"},
		{503, "Fri, 31 Dec 9999 23:59:59 GMT", callback.Result{RetryAfter: callback.Lifetime}, "503"},
		{503, "Fri, 31 Dec 1999 23:59:59 GMT", callback.Result{}, "503"},
		{599, "", callback.Result{}, "answered 599"},
	} {
		t.Run(strconv.Itoa(tc.code)+" "+tc.after, func(t *testing.T) {
			requests := 0
			srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
				requests++
				if tc.after != "" {
					w.Header().Set("Retry-After", tc.after)
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tc.code)
			})
			s := newSender(t, callback.Options{})
			got := s.Post(t.Context(), callback.Message{ID: "1", URL: srv.URL + "/hook", Body: []byte("{}")})
			if tc.text == "" && got.Err != nil {
				t.Errorf("got error %v, want none", got.Err)
			}
			if tc.text != "" {
				want(t, got.Err, "posting to "+srv.URL+"/hook", tc.text)
			}
			got.Err = nil
			if got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
			if requests != 1 {
				t.Errorf("got %d requests, want 1", requests)
			}
		})
	}
}

// A date in Retry-After becomes a delay from now.
func TestPostRetryAfterDate(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	got := newSender(t, callback.Options{}).Post(t.Context(), callback.Message{ID: "1", URL: srv.URL}).RetryAfter
	if got < 59*time.Minute || got > time.Hour {
		t.Errorf("got %v, want about an hour", got)
	}
}

func TestPostErrors(t *testing.T) {
	closed := serve(t, nil)
	closed.Close()
	// The server reads the request first: garbage that arrives earlier causes another error.
	garbage := raw(t, func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = c.Write(bytes.Repeat([]byte("spam"), 1000))
	})
	for name, tc := range map[string]struct{ url, text string }{
		"refused":        {closed.URL + "/hook", "connection refused"},
		"not HTTP":       {garbage + "/hook", "malformed HTTP"},
		"no such scheme": {"ftp://127.0.0.1/hook", "not an absolute http or https URL"},
		"no host":        {"http://:80/hook", "not an absolute http or https URL"},
		"relative":       {"/hook", "not an absolute http or https URL"},
		"no URL":         {"http://127.0.0.1:port/hook", "not an absolute http or https URL"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSender(t, callback.Options{})
			u := strings.Replace(tc.url, "://", "://ci:hush@", 1) + "?token=hush#hush"
			res := s.Post(t.Context(), callback.Message{ID: "1", URL: u, Body: []byte("{}")})
			if res.Delivered || res.Gone {
				t.Errorf("got %+v, want a failure", res)
			}
			want(t, res.Err, "posting ", tc.text)
			if strings.Contains(res.Err.Error(), "hush") {
				t.Errorf("got error %q, want no user info or query in it", res.Err)
			}
			if n := len(res.Err.Error()); n > 700 {
				t.Errorf("got an error of %d bytes, want at most 700", n)
			}
		})
	}
}

package image_test

import (
	"fmt"
	"maps"
	"net/http"
	"testing"
	"time"

	"osx-builder/image"
)

// story is a server's fault and what comes of it.
type story struct {
	serve    faulty
	want     error
	text     string
	requests int
	stall    time.Duration // Limits.Stall
	idle     time.Duration // Limits.Idle
}

func stories(t *testing.T, half int, other []byte) map[string]story {
	all := brokenTransfers(t, half)
	maps.Copy(all, changedFiles(t, half, other))
	maps.Copy(all, badRanges(half))
	maps.Copy(all, answers(t, half, other))
	return all
}

// brokenTransfers are about the body.
func brokenTransfers(t *testing.T, half int) map[string]story {
	return map[string]story{
		"ends at every twentieth":   {requests: 20, serve: twentieths(t, cutOff)},
		"resets at every twentieth": {requests: anyNumber, serve: twentieths(t, reset)}, // a reset drops what was not read yet
		"resets, and cannot resume": {want: image.ErrDownload, text: "does not continue", requests: 8, serve: func(w http.ResponseWriter, _ *http.Request, _ int, b []byte) {
			some(w, b, half, len(b))
			cutOff(w)
		}},
		"resets before the head": {requests: 3, serve: func(w http.ResponseWriter, r *http.Request, n int, b []byte) {
			if n < 3 {
				reset(w)
				return
			}
			plain(w, r, b)
		}},
		"resets always": {want: image.ErrDownload, text: "more tries", requests: 3, serve: func(w http.ResponseWriter, _ *http.Request, _ int, _ []byte) { reset(w) }},
		"stalls once": {requests: 2, stall: time.Second, serve: func(w http.ResponseWriter, r *http.Request, n int, b []byte) {
			if n == 1 {
				some(w, b, half, len(b))
				<-r.Context().Done()
				return
			}
			plain(w, r, b)
		}},
		"stalls for longer than it is waited for": {want: image.ErrStalled, text: "no byte comes within 400ms", requests: anyNumber, stall: 300 * time.Millisecond, idle: 400 * time.Millisecond, serve: func(_ http.ResponseWriter, r *http.Request, _ int, _ []byte) { <-r.Context().Done() }},
		"stalls before the head always":           {want: image.ErrDownload, text: "sends nothing", requests: 3, stall: 300 * time.Millisecond, serve: func(_ http.ResponseWriter, r *http.Request, _ int, _ []byte) { <-r.Context().Done() }},
		"says too long": {requests: 1, serve: func(w http.ResponseWriter, _ *http.Request, _ int, b []byte) {
			some(w, b, len(b), len(b)+1000)
			cutOff(w)
		}},
		"says too short":    {want: image.ErrChecksum, requests: 1, serve: func(w http.ResponseWriter, _ *http.Request, _ int, b []byte) { some(w, b, len(b)-10, len(b)-10) }},
		"says far too long": {want: image.ErrArchiveTooLarge, text: "64 GiB", requests: 1, serve: func(w http.ResponseWriter, _ *http.Request, _ int, b []byte) { some(w, b, 10, 1<<40) }},
		"ends a chunked body early": {requests: 2, serve: func(w http.ResponseWriter, r *http.Request, n int, b []byte) {
			if n == 1 {
				w.Header().Set("Last-Modified", time.Unix(1e9, 0).UTC().Format(http.TimeFormat))
				_, _ = w.Write(b[:half])
				w.(http.Flusher).Flush()
				cutOff(w)
				return
			}
			plain(w, r, b)
		}},
		"sends slowly": {requests: 1, stall: 5 * time.Second, serve: func(w http.ResponseWriter, _ *http.Request, _ int, b []byte) {
			w.Header().Set("Content-Length", itoa(len(b)))
			for len(b) > 0 {
				n := min(len(b), 4_000) // more than 70 pauses, longer than a stall together
				_, _ = w.Write(b[:n])
				w.(http.Flusher).Flush()
				time.Sleep(75 * time.Millisecond)
				b = b[n:]
			}
		}},
	}
}

// changedFiles are about a file that another took the place of.
func changedFiles(t *testing.T, half int, other []byte) map[string]story {
	return map[string]story{
		"changes the file, and says so": {requests: 3, serve: func(w http.ResponseWriter, r *http.Request, n int, b []byte) {
			if n == 1 {
				w.Header().Set("ETag", `"old"`)
				some(w, other, half, len(other))
				cutOff(w)
				return
			}
			w.Header().Set("ETag", `"new"`)
			plain(w, r, b)
		}},
		"changes the file, and ignores If-Range": {requests: 3, serve: func(w http.ResponseWriter, r *http.Request, n int, b []byte) {
			switch n {
			case 1:
				w.Header().Set("ETag", `"old"`)
				some(w, other, half, len(b))
				cutOff(w)
			case 2:
				w.Header().Set("ETag", `"new"`)
				rest(w, r, b)
			default:
				plain(w, r, b)
			}
		}},
		"changes the file, and says nothing": {requests: 3, serve: func(w http.ResponseWriter, r *http.Request, n int, b []byte) {
			switch n {
			case 1:
				some(w, other, half, len(b))
				cutOff(w)
			case 2:
				rest(w, r, b)
			default:
				if r.Header.Get("Range") != "" || r.Header.Get("Cache-Control") != "no-cache" {
					t.Errorf("third request has %v, want a fresh start", r.Header)
				}
				_, _ = w.Write(b)
			}
		}},
	}
}

// badRanges are about answers to a Range that do not fit.
func badRanges(half int) map[string]story {
	return map[string]story{
		"answers another range": {requests: 3, serve: func(w http.ResponseWriter, r *http.Request, n int, b []byte) {
			switch n {
			case 1:
				some(w, b, half, len(b))
				cutOff(w)
			case 2:
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 7-%d/%d", len(b)-1, len(b)))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(b[7:])
			default:
				plain(w, r, b)
			}
		}},
		"answers nonsense for a range": {requests: 3, serve: func(w http.ResponseWriter, r *http.Request, n int, b []byte) {
			switch n {
			case 1:
				some(w, b, half, len(b))
				cutOff(w)
			case 2:
				w.Header().Set("Content-Range", "octets please")
				w.WriteHeader(http.StatusPartialContent)
			default:
				plain(w, r, b)
			}
		}},
		"answers a range with the whole": {requests: 3, serve: func(w http.ResponseWriter, _ *http.Request, n int, b []byte) {
			if n == 1 {
				some(w, b, half, len(b))
				cutOff(w)
				return
			}
			_, _ = w.Write(b)
		}},
		"answers a range with 416": {requests: 3, serve: func(w http.ResponseWriter, r *http.Request, n int, b []byte) {
			switch n {
			case 1:
				some(w, b, half, len(b))
				cutOff(w)
			case 2:
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			default:
				plain(w, r, b)
			}
		}},
	}
}

// answers are about statuses and heads.
func answers(t *testing.T, half int, other []byte) map[string]story {
	return map[string]story{
		"is busy twice": {requests: 3, serve: func(w http.ResponseWriter, r *http.Request, n int, b []byte) {
			if n < 3 {
				w.Header().Set("Retry-After", "0")
				w.WriteHeader([]int{429, 503}[n-1])
				return
			}
			plain(w, r, b)
		}},
		"asks for more patience than there is": {want: image.ErrStalled, text: "503", requests: 1, serve: func(w http.ResponseWriter, _ *http.Request, _ int, _ []byte) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusServiceUnavailable)
		}},
		"is broken":  {want: image.ErrDownload, text: "500", requests: 3, serve: func(w http.ResponseWriter, _ *http.Request, _ int, _ []byte) { w.WriteHeader(500) }},
		"has it not": {want: image.ErrDownload, text: "404", requests: 1, serve: func(w http.ResponseWriter, r *http.Request, _ int, _ []byte) { http.NotFound(w, r) }},
		"forbids it": {want: image.ErrDownload, text: "403", requests: 1, serve: func(w http.ResponseWriter, _ *http.Request, _ int, _ []byte) { w.WriteHeader(403) }},
		"sends another file": {want: image.ErrChecksum, text: "not", requests: 1, serve: func(w http.ResponseWriter, r *http.Request, _ int, _ []byte) {
			plain(w, r, other)
		}},
		"has lost it half way": {want: image.ErrDownload, text: "404", requests: 2, serve: func(w http.ResponseWriter, r *http.Request, n int, b []byte) {
			if n == 1 {
				some(w, b, half, len(b))
				cutOff(w)
				return
			}
			http.NotFound(w, r)
		}},
		"redirects in a ring": {want: image.ErrDownload, text: "more than 10", requests: 11, serve: func(w http.ResponseWriter, r *http.Request, n int, _ []byte) {
			http.Redirect(w, r, "/again?"+itoa(n), http.StatusFound)
		}},
		"redirects to a file": {want: image.ErrDownload, text: "a file URL", requests: 1, serve: func(w http.ResponseWriter, r *http.Request, _ int, _ []byte) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}},
		"redirects ten times": {requests: 11, serve: func(w http.ResponseWriter, r *http.Request, n int, b []byte) {
			if n <= 10 {
				http.Redirect(w, r, "/again?"+itoa(n), http.StatusTemporaryRedirect)
				return
			}
			if got := r.Header.Get("Referer"); got != "" {
				t.Errorf("Referer %q shows the first URL", got)
			}
			plain(w, r, b)
		}},
		"encodes what is no encoding": {requests: 1, serve: func(w http.ResponseWriter, r *http.Request, _ int, b []byte) {
			if got := r.Header.Get("Accept-Encoding"); got != "identity" {
				t.Errorf("Accept-Encoding %q, want identity", got)
			}
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(b)
		}},
	}
}

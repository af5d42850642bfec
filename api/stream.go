package api

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// streamTimeout is the longest time that one write to a stream may take.
const streamTimeout = 30 * time.Second

// stream is an answer that is sent piece by piece for as long as the client stays connected.
type stream struct {
	w    http.ResponseWriter
	conn *http.ResponseController
}

// newStream starts an answer of the content type. The header is sent with the first piece, or by [stream.start].
func newStream(w http.ResponseWriter, contentType string) *stream {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would buffer the stream
	w.WriteHeader(http.StatusOK)
	return &stream{w, http.NewResponseController(w)}
}

// start sends the header. Otherwise a client of a stream without output would not know that its request was accepted.
func (s *stream) start() error { return s.send("") }

// copy sends everything that it reads from r, without delay.
func (s *stream) copy(r io.Reader) error {
	b := make([]byte, 32<<10)
	for {
		n, err := r.Read(b)
		if n > 0 {
			if err := s.send(string(b[:n])); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// send writes text and flushes it. The server's write timeout is for whole answers, so each write of a stream sets its
// own deadline.
func (s *stream) send(text string) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(streamTimeout)); err != nil {
		return err
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.conn.Flush()
}

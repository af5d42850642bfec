package api

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// streamStall is how long a client may take none of a stream's bytes.
const streamStall = 30 * time.Second

// stream is an answer that goes on for as long as its client takes it.
type stream struct {
	w    http.ResponseWriter
	conn *http.ResponseController
}

// newStream begins an answer of the type.
func newStream(w http.ResponseWriter, contentType string) *stream {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold it back
	w.WriteHeader(http.StatusOK)
	return &stream{w, http.NewResponseController(w)}
}

// copy writes what is read, as soon as it is.
func (s *stream) copy(from io.Reader) error {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
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

// send writes text at once. The server's own deadline, which is for whole
// answers, gives way to one for each piece.
func (s *stream) send(text string) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(streamStall)); err != nil {
		return err
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.conn.Flush()
}

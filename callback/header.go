package callback

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// setHeader fills the header of an attempt that is made now.
func (s *Sender) setHeader(h http.Header, m Message, now time.Time) {
	timestamp := strconv.FormatInt(now.Unix(), 10)
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", s.userAgent)
	h.Set("Webhook-Id", m.ID)
	h.Set("Webhook-Timestamp", timestamp)
	if signature := sign(s.secrets(), m.ID, timestamp, m.Body); signature != "" {
		h.Set("Webhook-Signature", signature)
	}
	// A nil value is not sent. It lets http.Transport repeat the request if a kept connection turns out to be closed.
	// Receivers recognize a repetition by its webhook-id.
	h["Idempotency-Key"] = nil
}

// sign returns the value of the webhook-signature header: for each secret the HMAC-SHA256 of id, timestamp and body,
// joined by dots.
func sign(secrets [][]byte, id, timestamp string, body []byte) string {
	var signatures []string
	for _, secret := range secrets {
		h := hmac.New(sha256.New, secret)
		fmt.Fprintf(h, "%s.%s.%s", id, timestamp, body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	return strings.Join(signatures, " ")
}

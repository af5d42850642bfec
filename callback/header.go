package callback

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The bounds that Standard Webhooks sets on a secret, in bytes.
const (
	minSecret = 24
	maxSecret = 64
)

// head fills the header of an attempt that is made now.
func (s *Sender) head(h http.Header, m Message, now time.Time) {
	timestamp := strconv.FormatInt(now.Unix(), 10)
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", s.userAgent)
	h.Set("Webhook-Id", m.ID)
	h.Set("Webhook-Timestamp", timestamp)
	if signature := sign(s.secrets(), m.ID, timestamp, m.Body); signature != "" {
		h.Set("Webhook-Signature", signature)
	}
	// Present without a value, this header is not sent but tells
	// http.Transport that the request may be repeated, where a kept connection
	// turns out to be closed. Receivers know a repetition by its webhook-id.
	h["Idempotency-Key"] = nil
}

// sign returns the value of the webhook-signature header: one HMAC-SHA256 for
// each secret, over id, timestamp and body joined by dots.
func sign(secrets [][]byte, id, timestamp string, body []byte) string {
	var signatures []string
	for _, secret := range secrets {
		h := hmac.New(sha256.New, secret)
		fmt.Fprintf(h, "%s.%s.%s", id, timestamp, body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	return strings.Join(signatures, " ")
}

// ParseSecret reads a secret as Standard Webhooks writes it: "whsec_" and
// then 24 to 64 bytes in base64. Blanks around it do not count. Its errors
// hold nothing of the secret.
func ParseSecret(s string) ([]byte, error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(s), "whsec_")
	if !ok {
		return nil, errors.New("a callback secret begins with whsec_")
	}
	secret, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("what follows whsec_ in a callback secret is base64 with its padding")
	}
	if len(secret) < minSecret || len(secret) > maxSecret {
		return nil, fmt.Errorf("a callback secret has %d to %d bytes, not %d", minSecret, maxSecret, len(secret))
	}
	return secret, nil
}

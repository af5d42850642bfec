package callback_test

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"pgregory.net/rapid"

	"osx-builder/callback"
)

// post returns the header of an attempt to send body, signed with secrets.
func post(t *testing.T, secrets [][]byte, body []byte) http.Header {
	t.Helper()
	var got http.Header
	s := newSender(t, callback.Options{
		Secrets: func() [][]byte { return secrets },
		Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			got = r.Header.Clone()
			return answer(200), nil
		}),
	})
	if res := s.Post(t.Context(), callback.Message{ID: "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", URL: "http://ci.example", Body: body}); !res.Delivered {
		t.Fatalf("got %+v, want Delivered", res)
	}
	return got
}

// The library of Standard Webhooks accepts the signatures with each of two keys, and refuses another key or body.
func TestSignatureFollowsStandard(t *testing.T) {
	const first, second = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	var secrets [][]byte
	for _, s := range []string{first, second} {
		secret, err := callback.ParseSecret(s)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, secret)
	}
	body := []byte(`{"id":"1","phase":"ready"}`)
	header := post(t, secrets, body)
	if n := len(strings.Split(header.Get("webhook-signature"), " ")); n != 2 {
		t.Errorf("got %d signatures, want 2", n)
	}
	for _, tc := range []struct {
		secret string
		body   string
		ok     bool
	}{
		{first, string(body), true},
		{second, string(body), true},
		{second, string(body) + " ", false},
		{"whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32)), string(body), false},
	} {
		wh, err := standardwebhooks.NewWebhook(tc.secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := wh.Verify([]byte(tc.body), header); (err == nil) != tc.ok {
			t.Errorf("key %s, body %s: got %v, want accepted: %v", tc.secret, tc.body, err, tc.ok)
		}
	}
}

func TestSignatureOfAnyBody(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), 24, 64).Draw(rt, "secret")
		body := rapid.SliceOf(rapid.Byte()).Draw(rt, "body")
		wh, err := standardwebhooks.NewWebhookRaw(secret)
		if err != nil {
			rt.Fatal(err)
		}
		if err := wh.Verify(body, post(t, [][]byte{secret}, body)); err != nil {
			rt.Error(err)
		}
	})
}

func TestParseSecret(t *testing.T) {
	text := func(n int) string {
		return "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xfb}, n))
	}
	for _, tc := range []struct {
		name, in string
		bytes    int
		err      string
	}{
		{"shortest", text(24), 24, ""},
		{"longest", text(64), 64, ""},
		{"a line of a file", "  " + text(32) + "\r\n", 32, ""},
		{"too short", text(23), 0, "24 to 64 bytes, not 23"},
		{"too long", text(65), 0, "24 to 64 bytes, not 65"},
		{"empty", "", 0, "must begin with whsec_"},
		{"only the prefix", "whsec_", 0, "24 to 64 bytes, not 0"},
		{"no prefix", strings.TrimPrefix(text(32), "whsec_"), 0, "must begin with whsec_"},
		{"no padding", strings.TrimRight(text(32), "="), 0, "base64 with padding"},
		{"two at once", text(33) + "\n" + text(33), 0, "base64"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := callback.ParseSecret(tc.in)
			if tc.err != "" {
				want(t, err, tc.err)
				if len(tc.in) > 10 && strings.Contains(err.Error(), "+/v7") {
					t.Errorf("got error %q, want no part of the secret in it", err)
				}
			} else if err != nil || !bytes.Equal(got, bytes.Repeat([]byte{0xfb}, tc.bytes)) {
				t.Errorf("got %x, %v, want %d bytes of fb", got, err, tc.bytes)
			}
		})
	}
}

package image

import "net/http"

// TransportWith returns a transport that adds credentials to the requests of another.
func TransportWith(c *Credentials, t http.RoundTripper) http.RoundTripper {
	return &credentialTransport{t, c}
}

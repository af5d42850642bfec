package server

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"
)

// certificate is the one with which the API is served.
type certificate struct {
	cert, key string // paths
	now       atomic.Pointer[tls.Certificate]
}

func openCertificate(cert, key string) (*certificate, error) {
	c := &certificate{cert: cert, key: key}
	return c, c.reload()
}

// reload reads the files anew. After an error the certificate of before holds.
func (c *certificate) reload() error {
	read, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("reading the certificate %s (-tls-cert) and its key %s (-tls-key): %w", c.cert, c.key, err)
	}
	c.now.Store(&read)
	return nil
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.now.Load(), nil },
	}
}

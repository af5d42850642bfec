package config

import (
	"crypto/x509"
	"errors"
	"os"
)

// certificatesValue is the path of a PEM file with certificate authorities. Set reads the file into pool, in addition to
// the authorities of the host.
type certificatesValue struct {
	pathValue
	pool **x509.CertPool
}

func (v certificatesValue) Set(s string) error {
	if err := v.pathValue.Set(s); err != nil || s == "" {
		return err
	}
	text, err := os.ReadFile(*v.target)
	if err != nil {
		return err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a host without certificate authorities
	}
	if !pool.AppendCertsFromPEM(text) {
		return errors.New("must be a PEM file with at least one certificate")
	}
	*v.pool = pool
	return nil
}

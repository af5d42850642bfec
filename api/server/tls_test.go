package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osx-builder/api/server"
)

// authority writes a certificate that vouches for itself, and its key.
func authority(t *testing.T, cert, key string) *x509.CertPool {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	must(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	parsed, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return pool
}

// The API is served over TLS 1.2 and later, and SIGHUP takes a renewed
// certificate over. One that is broken changes nothing.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	old := authority(t, cert, key)
	r := run(t, server.Options{TLSCert: cert, TLSKey: key}, hello)
	at, ok := strings.CutPrefix(r.URL(), "https://")
	if !ok {
		t.Fatalf("URL: got %s, want https://", r.URL())
	}
	try := func(c *tls.Config) error {
		conn, err := tls.Dial("tcp", at, c)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	if status, body := get(t, "http://127.0.0.1/", func() (net.Conn, error) { return tls.Dial("tcp", at, &tls.Config{RootCAs: old}) }); status != 200 || body != "hello" {
		t.Errorf("got %d %q, want 200 hello", status, body)
	}
	if err := try(&tls.Config{RootCAs: old, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is spoken, want it refused")
	}
	must(t, try(&tls.Config{RootCAs: old, MaxVersion: tls.VersionTLS12}))
	renewed := authority(t, cert, key)
	must(t, try(&tls.Config{RootCAs: old}))
	r.reload()
	must(t, try(&tls.Config{RootCAs: renewed}))
	if err := try(&tls.Config{RootCAs: old}); err == nil {
		t.Error("after SIGHUP the old certificate is served, want the new one")
	}
	must(t, os.WriteFile(cert, []byte("nonsense"), 0o600))
	r.reload()
	must(t, try(&tls.Config{RootCAs: renewed}))
	if !strings.Contains(r.log.String(), "not all was read anew") {
		t.Errorf("the log does not tell of the broken certificate: %s", r.log)
	}
}

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

// writeCertificate writes a self-signed certificate and its key, and returns the pool that trusts it.
func writeCertificate(t *testing.T, cert, key string) *x509.CertPool {
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

// The API is served over TLS 1.2 and later. SIGHUP loads a renewed certificate. A broken one changes nothing.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	oldPool := writeCertificate(t, cert, key)
	s := startServer(t, server.Options{TLSCert: cert, TLSKey: key}, hello)
	addr, ok := strings.CutPrefix(s.URL(), "https://")
	if !ok {
		t.Fatalf("URL: got %s, want https://", s.URL())
	}
	connect := func(c *tls.Config) error {
		conn, err := tls.Dial("tcp", addr, c)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	if status, body := get(t, "http://127.0.0.1/", func() (net.Conn, error) { return tls.Dial("tcp", addr, &tls.Config{RootCAs: oldPool}) }); status != 200 || body != "hello" {
		t.Errorf("got %d %q, want 200 hello", status, body)
	}
	if err := connect(&tls.Config{RootCAs: oldPool, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is accepted, want it refused")
	}
	must(t, connect(&tls.Config{RootCAs: oldPool, MaxVersion: tls.VersionTLS12}))
	newPool := writeCertificate(t, cert, key)
	must(t, connect(&tls.Config{RootCAs: oldPool}))
	s.reload()
	must(t, connect(&tls.Config{RootCAs: newPool}))
	if err := connect(&tls.Config{RootCAs: oldPool}); err == nil {
		t.Error("after SIGHUP the server uses the old certificate, want the new one")
	}
	must(t, os.WriteFile(cert, []byte("nonsense"), 0o600))
	s.reload()
	must(t, connect(&tls.Config{RootCAs: newPool}))
	if !strings.Contains(s.log.String(), "reloading failed") {
		t.Errorf("the log does not mention the broken certificate: %s", s.log)
	}
}

package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osx-builder/config"
)

func TestCertificateAuthorities(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "bad.pem")
	for name, text := range map[string][]byte{good: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), bad: []byte("none")} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := config.Load([]string{"-ca-file", good}, env{}.get)
	if err != nil || c.CAFile != good || c.RootCAs == nil {
		t.Fatalf("got %q, %v, %v, want the file and its authorities", c.CAFile, c.RootCAs, err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: c.RootCAs}); err != nil {
		t.Errorf("the authority is not in the pool: %v", err)
	}
	if c, err = config.Load(nil, env{}.get); err != nil || c.RootCAs != nil {
		t.Errorf("without a file: got %v, %v, want the host's authorities", c.RootCAs, err)
	}
	for file, want := range map[string]string{bad: "at least one certificate", dir + "/none": "no such file"} {
		if _, err := config.Load([]string{"-ca-file", file}, env{}.get); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", file, err, want)
		}
	}
}

package e2e_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// startDaemon starts a daemon with these flags. A harness cannot be used, because the
// daemon does not listen on plain HTTP.
func startDaemon(t *testing.T, args ...string) *e2e.Daemon {
	t.Helper()
	d, err := e2e.Start(e2e.Options{Binary: harness.Binary(t), Data: harness.DataDir(t), Args: args})
	harness.Must(t, err)
	t.Cleanup(func() {
		harness.Must(t, d.Stop())
		if t.Failed() {
			t.Log(d.Log())
		}
	})
	return d
}

// curl returns the body of a response, and its status on the last line.
func curl(t *testing.T, args ...string) string {
	t.Helper()
	args = append([]string{"-sS", "-m", "20", "-w", "\n%{http_code}"}, args...)
	out, err := exec.Command("curl", args...).CombinedOutput()
	if err != nil {
		t.Errorf("curl %q: %v: %s", args, err, out)
	}
	return string(out)
}

// As SECURITY.md shows, curl sends requests over a Unix socket. The daemon removes
// the socket when it stops, and replaces one that a killed daemon left.
func TestUnixSocketWithCurl(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "api.sock")
	t.Run("answers", func(t *testing.T) {
		d := startDaemon(t, "-listen", "unix:"+socket)
		if d.URL != "unix:"+socket {
			t.Errorf("the log names %s, want unix:%s", d.URL, socket)
		}
		if got := curl(t, "--unix-socket", socket, "http://localhost/vms"); got != "{\n  \"vms\": []\n}\n\n200" {
			t.Errorf("got %q, want no machines", got)
		}
	})
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("after the daemon has stopped: got %v, want no socket", err)
	}
	t.Run("after a crash", func(t *testing.T) {
		killed, err := e2e.Start(e2e.Options{
			Binary: harness.Binary(t), Data: t.TempDir(), Args: []string{"-listen", "unix:" + socket},
		})
		harness.Must(t, err)
		harness.Must(t, killed.Kill())
		startDaemon(t, "-listen", "unix:"+socket)
		if got := curl(t, "--unix-socket", socket, "http://localhost/healthz"); !strings.Contains(got, `"hypervisor"`) {
			t.Errorf("GET /healthz: got %q, want hypervisor in it", got)
		}
	})
}

// As SECURITY.md shows, curl sends requests over TLS with a token. After SIGHUP the
// daemon accepts only the token that the token file has then.
func TestTLSAndTokensWithCurl(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key, tokens := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "tokens")
	certificate(t, cert, key)
	write := func(text string) { harness.Must(t, os.WriteFile(tokens, []byte(text), 0o600)) }
	const old, renewed = "the-token-of-2025-xxxx", "the-token-of-2026-xxxx"
	write("# CI\n" + old + "\n")
	d := startDaemon(t, "-listen", "0.0.0.0:0", "-token-file", tokens, "-tls-cert", cert, "-tls-key", key)
	port := d.URL[strings.LastIndex(d.URL, ":"):]
	if !strings.HasPrefix(d.URL, "https://") {
		t.Errorf("the log names %s, want https://", d.URL)
	}
	get := func(token string) string {
		args := []string{"--cacert", cert, "https://127.0.0.1" + port + "/vms"}
		if token != "" {
			args = append(args, "-H", "Authorization: Bearer "+token)
		}
		return curl(t, args...)
	}
	if got := get(""); !strings.Contains(got, `"unauthorized"`) || !strings.HasSuffix(got, "401") {
		t.Errorf("without a token: got %s, want 401 unauthorized", got)
	}
	if got := get(old); !strings.HasSuffix(got, "200") {
		t.Errorf("with the token: got %s, want 200", got)
	}
	if got := curl(t, "--cacert", cert, "https://127.0.0.1"+port+"/healthz"); !strings.Contains(got, `"hypervisor"`) {
		t.Errorf("GET /healthz without a token: got %s, want hypervisor in it", got)
	}
	write(renewed)
	reload(t, d, "reloaded the log file")
	if got := get(old); !strings.HasSuffix(got, "401") {
		t.Errorf("with the old token after SIGHUP: got %s, want 401", got)
	}
	if got := get(renewed); !strings.HasSuffix(got, "200") {
		t.Errorf("with the new token: got %s, want 200", got)
	}
	if strings.Contains(d.Log(), old) || strings.Contains(d.Log(), renewed) {
		t.Error("the log has a token")
	}
}

// certificate writes the certificate and key of net/http/httptest.
func certificate(t *testing.T, cert, key string) {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	pair := s.TLS.Certificates[0]
	secret, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	harness.Must(t, err)
	write := func(path, kind string, der []byte) {
		harness.Must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	write(cert, "CERTIFICATE", pair.Certificate[0])
	write(key, "PRIVATE KEY", secret)
}

// While VMware hangs, the metrics and the health are available and say that the state
// of the machine is unknown. When VMware answers again, they have the state.
func TestMetricsAndHealthWhileVMwareHangs(t *testing.T) {
	t.Parallel()
	w := newVMware(t)
	v := w.WaitReady(w.Create(w.Image(harness.TinyVM).Body(harness.SmallVM(nil))).ID)
	client := http.Client{Timeout: harness.Timeout}
	get := func(path string) string {
		t.Helper()
		res, err := client.Get(w.URL + path)
		harness.Must(t, err)
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		harness.Must(t, err)
		return fmt.Sprintf("%d\n%s", res.StatusCode, b)
	}
	hung := regexp.MustCompile(`\nosx_builder_vms\{phase="(ready|unknown)",status="unknown"\} 1\n`)
	w.set("hang.Vix_GetProperties", v.ID)
	for range 2 {
		if got := get("/metrics"); !strings.HasPrefix(got, "200\n") || !hung.MatchString(got) {
			t.Errorf("/metrics: got %s, want 200 and one machine of unknown status", got)
		}
		got := get("/healthz?verbose=1")
		if !strings.Contains(got, `"hypervisor": "vix"`) || !strings.Contains(got, `"free_bytes"`) {
			t.Errorf("/healthz: got %s, want the hypervisor and free_bytes in it", got)
		}
	}
	w.set("hang.Vix_GetProperties", "")
	const poweredOn = `osx_builder_vms{phase="ready",status="powered-on"} 1`
	for deadline := time.Now().Add(harness.Timeout); !strings.Contains(get("/metrics"), poweredOn); {
		if time.Now().After(deadline) {
			t.Fatalf("after VMware answers again, /metrics: got %s, want %s in it", get("/metrics"), poweredOn)
		}
	}
}

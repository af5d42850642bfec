package e2e_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// Callbacks are signed with every secret of the secret file. SIGHUP reads the file
// again and opens the log file again. An invalid secret file changes nothing.
func TestReloadOnSIGHUP(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secrets := filepath.Join(dir, "secrets")
	key := func(b string) string { return "whsec_" + strings.Repeat(b, 32) }
	harness.Must(t, os.WriteFile(secrets, []byte(key("A")+"\n"), 0o600))
	s := harness.New(t, "-callback-secret-file", secrets)
	i := s.Image(harness.TinyVM)
	body := i.Body(map[string]any{"callback_url": s.Site.CallbackURL(), "memory": "192mib", "image": map[string]string{
		"url": s.Site.ImageURL("none"), "checksum": strings.Repeat("0", 64), "checksum_type": "sha256",
	}})
	s.Site.Serve = func(w http.ResponseWriter, _ *http.Request, _ string) { w.WriteHeader(http.StatusNotFound) }
	checkSignatures := func(keys ...string) {
		t.Helper()
		s.Create(body)
		select {
		case c := <-s.Site.Callbacks:
			for _, k := range keys {
				harness.Must(t, verifySignature(k, c.Header, c.Body))
			}
			if n := len(strings.Fields(c.Header.Get("Webhook-Signature"))); n != len(keys) {
				t.Errorf("got %d signatures, want %d", n, len(keys))
			}
		case <-time.After(harness.Timeout):
			t.Fatalf("no callback within %v", harness.Timeout)
		}
	}
	checkSignatures(key("A"))
	harness.Must(t, os.WriteFile(secrets, []byte(key("B")+"\n"+key("A")+"\n"), 0o600))
	reload(t, s.Daemon, "reloaded the log file")
	checkSignatures(key("B"), key("A"))
	harness.Must(t, os.WriteFile(secrets, []byte("nonsense"), 0o600))
	reload(t, s.Daemon, "the previous settings stay in use")
	checkSignatures(key("B"), key("A"))
	if strings.Contains(s.Log(), "nonsense") {
		t.Error("the log has the content of the secret file")
	}
}

// reload sends SIGHUP and waits until the daemon logs the message.
func reload(t *testing.T, d *e2e.Daemon, message string) {
	t.Helper()
	before := strings.Count(d.Log(), message)
	harness.Must(t, syscall.Kill(d.PID(), syscall.SIGHUP))
	deadline := time.Now().Add(harness.Timeout)
	for strings.Count(d.Log(), message) == before {
		if time.Now().After(deadline) {
			t.Fatalf("the daemon did not log %q after SIGHUP: %s", message, d.Log())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// verifySignature verifies the signature with the reference library of Standard
// Webhooks.
func verifySignature(secret string, h http.Header, body []byte) error {
	w, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return err
	}
	return w.Verify(body, h)
}

// After the log file is renamed, SIGHUP makes the daemon open a new one.
func TestLogFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	d := exec.Command(harness.Binary(t), "-data", t.TempDir(), "-listen", "127.0.0.1:0", "-log-file", path)
	harness.Must(t, d.Start())
	t.Cleanup(func() { _ = d.Process.Kill() }) // it has ended unless the test failed
	waitForText(t, path, "listening")
	harness.Must(t, os.Rename(path, path+".1"))
	harness.Must(t, syscall.Kill(d.Process.Pid, syscall.SIGHUP))
	waitForText(t, path, "reloaded the log file")
	harness.Must(t, d.Process.Signal(syscall.SIGTERM))
	harness.Must(t, d.Wait())
	waitForText(t, path, "stopping")
	waitForText(t, path+".1", "listening")
}

// waitForText waits until a file contains a text.
func waitForText(t *testing.T, path, text string) {
	t.Helper()
	for deadline := time.Now().Add(harness.Timeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), text) {
			return
		}
	}
	b, _ := os.ReadFile(path)
	t.Fatalf("%s does not contain %q: %s", path, text, b)
}

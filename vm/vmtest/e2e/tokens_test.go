package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// Names, scopes and quotas of tokens apply to the daemon, also after a restart, and SIGHUP reads them again.
func TestNamedTokens(t *testing.T) {
	t.Parallel()
	const ci, other, root = "token-of-ci-0123456789", "token-of-others-012345", "token-of-root-01234567"
	file := filepath.Join(t.TempDir(), "tokens")
	write := func(scopes string) {
		text := ci + " name=ci scopes=" + scopes + "\n" + other + " name=other scopes=create,own\n" + root + "\n"
		harness.Must(t, os.WriteFile(file, []byte(text), 0o600))
	}
	write("create,own")
	s := harness.New(t, "-token-file", file, "-vms-per-token", "1", "-memory-per-token", "1GiB")
	body := s.Image(harness.TinyVM).Body(map[string]any{"memory": "192mib", "image": map[string]string{
		"url": "http://127.0.0.1:1/none", "checksum": strings.Repeat("0", 64), "checksum_type": "sha256",
	}})
	send := func(token, method, path string, want int) (v vm.VM, answer e2e.Response) {
		t.Helper()
		text := ""
		if method == "POST" {
			text = string(body)
		}
		req, err := http.NewRequest(method, s.URL+path, strings.NewReader(text))
		harness.Must(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		a, err := s.Send(req)
		harness.Must(t, err)
		if a.Status != want {
			t.Fatalf("%s %s: got %d %s, want %d", method, path, a.Status, a.Body, want)
		}
		if want == http.StatusAccepted || want == http.StatusOK {
			harness.Must(t, a.JSON(&v))
		}
		return v, a
	}
	mine, _ := send(ci, "POST", "/vms", http.StatusAccepted)
	if mine.Owner != "ci" {
		t.Errorf("got owner %q, want ci", mine.Owner)
	}
	if _, a := send(ci, "POST", "/vms", http.StatusTooManyRequests); !strings.Contains(string(a.Body), string(vm.CodeQuota)) {
		t.Errorf("got %s, want %s", a.Body, vm.CodeQuota)
	}
	theirs, _ := send(other, "POST", "/vms", http.StatusAccepted)
	harness.Must(t, s.Stop())
	s.Start()
	send(ci, "POST", "/vms", http.StatusTooManyRequests)
	send(ci, "GET", "/vms/"+mine.ID, http.StatusOK)
	send(ci, "GET", "/vms/"+theirs.ID, http.StatusNotFound)
	send(ci, "DELETE", "/vms/"+theirs.ID, http.StatusNotFound)
	write("read")
	reload(t, s.Daemon, "reloaded the log file")
	send(ci, "GET", "/vms/"+theirs.ID, http.StatusOK)
	send(ci, "DELETE", "/vms/"+mine.ID, http.StatusForbidden)
	write("everything")
	reload(t, s.Daemon, "the previous settings stay in use")
	for _, id := range []string{mine.ID, theirs.ID} {
		send(root, "DELETE", "/vms/"+id, http.StatusNoContent)
	}
	_, metrics := send(root, "GET", "/images", http.StatusOK)
	for _, text := range []string{s.Log(), string(metrics.Body), folderText(t, s.Data), processTree(s.PID())} {
		if strings.Contains(text, ci) || strings.Contains(text, other) || strings.Contains(text, root) {
			t.Errorf("a token is shown: %s", text)
		}
	}
	if !strings.Contains(s.Log(), `"token":"ci"`) {
		t.Errorf("the log does not have the token's name: %s", s.Log())
	}
}

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// The daemon sends credentials to the server that they are for, reads them again on
// SIGHUP, and shows them nowhere.
func TestPrivateImageServer(t *testing.T) {
	t.Parallel()
	const planted = "pl4nted-cr3dential"
	file := filepath.Join(t.TempDir(), "credentials")
	harness.Must(t, os.WriteFile(file, []byte("https://images.example.com/ bearer "+planted+"\n"), 0o600))
	s := harness.New(t, "-credentials-file", file, "-log-level", "debug")
	s.Site.Serve = func(w http.ResponseWriter, r *http.Request, _ string) {
		if r.Header.Get("Authorization") == "Bearer "+planted {
			fmt.Fprint(w, "not an image")
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
	}
	body := s.Image(harness.TinyVM).Body(map[string]any{"callback_url": s.Site.CallbackURL(), "memory": "192mib", "image": map[string]string{
		"url": s.Site.ImageURL("private"), "checksum": strings.Repeat("0", 64), "checksum_type": "sha256",
	}})
	create := func() (v vm.VM, callback []byte) {
		v = s.WaitSettled(s.Create(body).ID)
		select {
		case c := <-s.Site.Callbacks:
			return v, c.Body
		case <-time.After(harness.Timeout):
			t.Fatalf("no callback within %v", harness.Timeout)
			return v, nil
		}
	}
	v, _ := create()
	if v.Error == nil || v.Error.Code != vm.CodeImageDownload || !strings.Contains(v.Error.Message, "-credentials-file") {
		t.Errorf("without credentials: got %v, want %s and the setting", v.Error, vm.CodeImageDownload)
	}

	harness.Must(t, os.WriteFile(file, []byte(strings.TrimSuffix(s.Site.ImageURL("private"), "private")+" bearer "+planted+"\n"), 0o600))
	reload(t, s.Daemon, "reloaded the log file")
	v, callback := create()
	if v.Error == nil || v.Error.Code != vm.CodeImageChecksum {
		t.Errorf("with credentials: got %v, want %s", v.Error, vm.CodeImageChecksum)
	}

	places := map[string]string{"the log": s.Log(), "the callback": string(callback), "the process list": processText(t, s.PID()), "the data folder": folderText(t, s.Data)}
	for _, path := range []string{"/vms/" + v.ID, "/vms", "/images", "/metrics", "/healthz?verbose=1"} {
		a, err := s.Do("GET", path, "", nil)
		harness.Must(t, err)
		places[path] = string(a.Body) + fmt.Sprint(a.Header)
	}
	for place, text := range places {
		if text == "" || strings.Contains(text, planted) {
			t.Errorf("%s is empty or shows the credentials: %s", place, text)
		}
	}
	harness.Must(t, os.WriteFile(file, []byte("nonsense "+planted), 0o600))
	reload(t, s.Daemon, "the previous settings stay in use")
	if strings.Contains(s.Log(), planted) {
		t.Error("the log shows the credentials of an invalid file")
	}
}

// processText returns the arguments and the environment of a process.
func processText(t *testing.T, pid int) (text string) {
	t.Helper()
	for _, name := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		harness.Must(t, err)
		text += string(b)
	}
	return text
}

// folderText returns the contents of all files below a folder.
func folderText(t *testing.T, folder string) string {
	t.Helper()
	var text strings.Builder
	harness.Must(t, filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		text.Write(b)
		return err
	}))
	return text.String()
}

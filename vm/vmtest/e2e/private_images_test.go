package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
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
	begun, finish := make(chan struct{}, 10), make(chan struct{})
	s.Site.SetServe(func(w http.ResponseWriter, r *http.Request, file string) {
		switch {
		case r.Header.Get("Authorization") != "Bearer "+planted:
			http.Error(w, r.Header.Get("Authorization"), http.StatusUnauthorized)
		case filepath.Base(file) == harness.TinyVM:
			begun <- struct{}{}
			<-finish
			http.ServeFile(w, r, file)
		default:
			fmt.Fprint(w, "not an image")
		}
	})
	events := readEvents(t, s)
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

	search := func(when string, paths ...string) {
		t.Helper()
		places := map[string]string{
			"the log": s.Log(), "the callback": string(callback), "the process list": processTree(s.PID()),
			"the data folder": folderText(t, s.Data), "the events": events(),
		}
		for _, path := range append(paths, "/vms/"+v.ID, "/vms", "/images", "/metrics", "/healthz?verbose=1") {
			a, err := s.Do("GET", path, "", nil)
			harness.Must(t, err)
			places[path] = string(a.Body) + fmt.Sprint(a.Header)
		}
		for place, text := range places {
			if text == "" || strings.Contains(text, planted) {
				t.Errorf("%s: %s is empty or shows the credentials: %s", when, place, text)
			}
		}
	}
	search("after a machine failed")

	i := s.Image(harness.TinyVM)
	path := "/images/sha256-" + i.SHA256
	a, err := s.Do("POST", "/images", "", fmt.Appendf(nil, `{"url": %q, "checksum": %q}`, i.URL, i.SHA256))
	if err != nil || a.Status != http.StatusAccepted {
		t.Fatalf("POST /images: got %d %s, %v, want 202", a.Status, a.Body, err)
	}
	<-begun
	search("during a download", path)
	close(finish)
	for pulling := true; pulling; { // the daemon's children come and go
		if text := processTree(s.PID()); strings.Contains(text, planted) {
			t.Errorf("during a pull: the process list shows the credentials: %s", text)
		}
		a, err := s.Do("GET", path+"?wait=20ms", "", nil)
		harness.Must(t, err)
		var pulled vm.CachedImage
		harness.Must(t, a.JSON(&pulled))
		if pulled.Phase == vm.ImageFailed {
			t.Fatalf("the pull failed: %s", a.Body)
		}
		pulling = pulled.Phase != vm.ImageReady
	}
	search("after a pull", path)
	harness.Must(t, os.WriteFile(file, []byte("nonsense "+planted), 0o600))
	reload(t, s.Daemon, "the previous settings stay in use")
	if strings.Contains(s.Log(), planted) {
		t.Error("the log shows the credentials of an invalid file")
	}
}

// readEvents follows the daemon's events until the end of the test. The function returns what was read so far.
func readEvents(t *testing.T, s *harness.Harness) func() string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/events", nil)
	harness.Must(t, err)
	res, err := http.DefaultClient.Do(req)
	harness.Must(t, err)
	var mu sync.Mutex
	var text strings.Builder
	go func() {
		defer res.Body.Close()
		for b := make([]byte, 4096); ; {
			n, err := res.Body.Read(b)
			mu.Lock()
			text.Write(b[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return text.String()
	}
}

// processTree returns the arguments and the environments of a process and of those that it started.
func processTree(pid int) string {
	parents := make(map[int]int)
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		b, _ := os.ReadFile(file) // the process may have ended
		_, rest, _ := strings.Cut(string(b), ") ")
		child, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if fields := strings.Fields(rest); len(fields) > 1 {
			parents[child], _ = strconv.Atoi(fields[1])
		}
	}
	var text strings.Builder
	for child := range parents {
		for at := child; at != 0; at = parents[at] {
			if at != pid {
				continue
			}
			for _, name := range []string{"cmdline", "environ"} {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", child, name)) // the process may have ended
				text.Write(b)
			}
		}
	}
	return text.String()
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

package e2e_test

import (
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"osx-builder/vm/vmtest/harness"
)

// measure are what a daemon holds of its host.
type figures struct {
	descriptors, threads int
	rss                  int // KiB
	devices              int // network devices of ours
	files                []string
}

func (f figures) String() string {
	return fmt.Sprintf("%d descriptors, %d threads, %d KiB resident, %d network devices, %d files", f.descriptors, f.threads, f.rss, f.devices, len(f.files))
}

// measure measures the daemon while it has no machine.
func measure(s *harness.Harness) (f figures) {
	s.T.Helper()
	http.DefaultClient.CloseIdleConnections() // ours would count among its descriptors
	time.Sleep(200 * time.Millisecond)        // for it to see that they are closed
	proc := filepath.Join("/proc", strconv.Itoa(s.PID()))
	count := func(dir string) int {
		entries, err := os.ReadDir(filepath.Join(proc, dir))
		harness.Must(s.T, err)
		return len(entries)
	}
	f.descriptors, f.threads = count("fd"), count("task")
	b, err := os.ReadFile(filepath.Join(proc, "status"))
	harness.Must(s.T, err)
	if m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(b); m != nil {
		f.rss, _ = strconv.Atoi(string(m[1]))
	}
	devices, err := net.Interfaces()
	harness.Must(s.T, err)
	for _, d := range devices {
		if strings.HasPrefix(d.Name, "osxb") {
			f.devices++
		}
	}
	harness.Must(s.T, filepath.WalkDir(s.Data, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			f.files = append(f.files, strings.TrimPrefix(path, s.Data))
		}
		return err
	}))
	return f
}

// countGoroutines ends the daemon by SIGQUIT, which makes it tell of each.
func countGoroutines(s *harness.Harness) int {
	s.T.Helper()
	http.DefaultClient.CloseIdleConnections()
	harness.Must(s.T, s.Quit())
	n := len(regexp.MustCompile(`(?m)^goroutine \d+ `).FindAllString(s.Log(), -1))
	if n == 0 {
		s.T.Errorf("the daemon told of no goroutine: %s", s.Log())
	}
	return n
}

// TestSoak makes and destroys real machines over and over, with failures in
// between. What the daemon holds at the end is what it held after the first.
// SOAK_SECONDS says for how long.
func TestSoak(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("needs Linux's /proc to look into the daemon")
	}
	temp := t.TempDir()
	s := harness.NewEnv(t, append(os.Environ(), "TMPDIR="+temp))
	i := s.Image(harness.TinyVM)
	a, err := s.Do("GET", "/healthz", "", nil)
	harness.Must(t, err)
	if a.Status != http.StatusOK {
		t.Fatalf("GET /healthz: got %d %s", a.Status, a.Body)
	}
	fresh := countGoroutines(s)
	s.Start()
	round := func() {
		v := s.Create(i.Body(harness.SmallVM(map[string]any{"callback_url": s.Site.CallbackURL(), "expires_in": "1h"})))
		bad := s.Create(i.Body(harness.SmallVM(map[string]any{"image": map[string]string{
			"url": s.Site.ImageURL("none"), "checksum": strings.Repeat("1", 64), "checksum_type": "sha256",
		}})))
		cancelled := s.Create(i.Body(harness.SmallVM(nil)))
		s.Destroy(cancelled.ID)
		s.WaitReady(v.ID)
		s.WaitSettled(bad.ID)
		s.NextCallback()
		s.Destroy(v.ID)
		s.Destroy(bad.ID)
	}
	round()
	round()
	before := measure(s)
	rounds := 0
	for end := time.Now().Add(time.Duration(harness.EnvInt(t, "SOAK_SECONDS", 15)) * time.Second); time.Now().Before(end); rounds++ {
		round()
	}
	after := measure(s)
	left := countGoroutines(s)
	t.Logf("%d rounds of 3 machines each\nat the start: %v, %d goroutines\nat the end:   %v, %d goroutines", rounds, before, fresh, after, left)
	if after.descriptors > before.descriptors+2 || after.devices > before.devices || left > fresh+5 {
		t.Errorf("descriptors, devices or goroutines have grown")
	}
	if after.threads > before.threads+8 { // Go keeps threads that system calls once needed
		t.Errorf("threads have grown from %d to %d", before.threads, after.threads)
	}
	if after.rss > before.rss*3/2+32<<10 { // what the collector may still hold
		t.Errorf("resident memory has grown from %d to %d KiB", before.rss, after.rss)
	}
	if !slices.Equal(before.files, after.files) {
		t.Errorf("files were %q and are %q", before.files, after.files)
	}
	if entries, err := os.ReadDir(temp); err != nil || len(entries) > 0 {
		t.Errorf("temporary files: %v, %v", entries, err)
	}
	s.Start() // to tidy up what SIGQUIT cut off
}

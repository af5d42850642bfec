package main_test

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
)

// figures are what a daemon holds of its host.
type figures struct {
	descriptors, threads int
	rss                  int // KiB
	devices              int // network devices of ours
	files                []string
}

func (f figures) String() string {
	return fmt.Sprintf("%d descriptors, %d threads, %d KiB resident, %d network devices, %d files", f.descriptors, f.threads, f.rss, f.devices, len(f.files))
}

// figures measures the daemon while it has no machine.
func (s *stage) figures() (f figures) {
	s.t.Helper()
	http.DefaultClient.CloseIdleConnections() // ours would count among its descriptors
	time.Sleep(200 * time.Millisecond)        // for it to see that they are closed
	proc := filepath.Join("/proc", strconv.Itoa(s.PID()))
	count := func(dir string) int {
		entries, err := os.ReadDir(filepath.Join(proc, dir))
		must(s.t, err)
		return len(entries)
	}
	f.descriptors, f.threads = count("fd"), count("task")
	b, err := os.ReadFile(filepath.Join(proc, "status"))
	must(s.t, err)
	if m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(b); m != nil {
		f.rss, _ = strconv.Atoi(string(m[1]))
	}
	devices, err := net.Interfaces()
	must(s.t, err)
	for _, d := range devices {
		if strings.HasPrefix(d.Name, "osxb") {
			f.devices++
		}
	}
	must(s.t, filepath.WalkDir(s.Data, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			f.files = append(f.files, strings.TrimPrefix(path, s.Data))
		}
		return err
	}))
	return f
}

// goroutines ends the daemon by SIGQUIT, which makes it tell of each.
func (s *stage) goroutines() int {
	s.t.Helper()
	http.DefaultClient.CloseIdleConnections()
	must(s.t, s.Quit())
	n := len(regexp.MustCompile(`(?m)^goroutine \d+ `).FindAllString(s.Log(), -1))
	if n == 0 {
		s.t.Errorf("the daemon told of no goroutine: %s", s.Log())
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
	s := newStageEnv(t, append(os.Environ(), "TMPDIR="+temp))
	i := s.image(tinyvm)
	a, err := s.Do("GET", "/healthz", "", nil)
	must(t, err)
	if a.Status != http.StatusOK {
		t.Fatalf("GET /healthz: got %d %s", a.Status, a.Body)
	}
	fresh := s.goroutines()
	s.start()
	round := func() {
		v := s.create(i.Body(small(map[string]any{"callback_url": s.site.CallbackURL(), "expires_in": "1h"})))
		bad := s.create(i.Body(small(map[string]any{"image": map[string]string{
			"url": s.site.ImageURL("none"), "checksum": strings.Repeat("1", 64), "checksum_type": "sha256",
		}})))
		cancelled := s.create(i.Body(small(nil)))
		s.destroy(cancelled.ID)
		s.ready(v.ID)
		s.settled(bad.ID)
		s.callback()
		s.destroy(v.ID)
		s.destroy(bad.ID)
	}
	round()
	round()
	before := s.figures()
	rounds := 0
	for end := time.Now().Add(time.Duration(envInt(t, "SOAK_SECONDS", 15)) * time.Second); time.Now().Before(end); rounds++ {
		round()
	}
	after := s.figures()
	left := s.goroutines()
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
	s.start() // to tidy up what SIGQUIT cut off
}

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

	"osx-builder/vm/qemu/network"
	"osx-builder/vm/vmtest/harness"
)

// usage is the daemon's use of resources.
type usage struct {
	descriptors, threads int
	rss                  int // KiB
	devices              int // network devices of the daemon
	files                []string
}

func (u usage) String() string {
	return fmt.Sprintf("%d descriptors, %d threads, %d KiB resident, %d network devices, %d files",
		u.descriptors, u.threads, u.rss, u.devices, len(u.files))
}

// measureUsage measures the daemon while it has no machine and no connection.
func measureUsage(s *harness.Harness) (u usage) {
	s.T.Helper()
	http.DefaultClient.CloseIdleConnections()
	waitForSockets(s, "closed", func(all []socket) bool { return len(all) == 0 })
	proc := filepath.Join("/proc", strconv.Itoa(s.PID()))
	count := func(dir string) int {
		entries, err := os.ReadDir(filepath.Join(proc, dir))
		harness.Must(s.T, err)
		return len(entries)
	}
	u.descriptors, u.threads = count("fd"), count("task")
	b, err := os.ReadFile(filepath.Join(proc, "status"))
	harness.Must(s.T, err)
	if m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(b); m != nil {
		u.rss, _ = strconv.Atoi(string(m[1]))
	}
	devices, err := net.Interfaces()
	harness.Must(s.T, err)
	for _, d := range devices {
		if strings.HasPrefix(d.Name, network.DevicePrefix(s.Data)) {
			u.devices++
		}
	}
	harness.Must(s.T, filepath.WalkDir(s.Data, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			u.files = append(u.files, strings.TrimPrefix(path, s.Data))
		}
		return err
	}))
	return u
}

// countGoroutines ends the daemon with SIGQUIT and counts the stacks in its log.
func countGoroutines(s *harness.Harness) int {
	s.T.Helper()
	http.DefaultClient.CloseIdleConnections()
	harness.Must(s.T, s.Quit())
	n := len(regexp.MustCompile(`(?m)^goroutine \d+ `).FindAllString(s.Log(), -1))
	if n == 0 {
		s.T.Errorf("the log has no stack of a goroutine: %s", s.Log())
	}
	return n
}

// TestSoak creates and destroys machines repeatedly, some of which fail. At the end
// the daemon must not use more resources than after the first rounds. SOAK_SECONDS
// sets the duration, and SOAK_BOOTS how many guests boot at least. The evidence of a
// guest that dies or hangs is kept in build/soak.
func TestSoak(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		harness.Without(t, "this test needs /proc, which only Linux has")
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
	all := &boots{s: s}
	round := func() {
		v := s.Create(i.Body(harness.SmallVM(map[string]any{
			"callback_url": s.Site.CallbackURL(), "expires_in": "1h",
		})))
		bad := s.Create(i.Body(harness.SmallVM(map[string]any{"image": map[string]string{
			"url": s.Site.ImageURL("none"), "checksum": strings.Repeat("1", 64), "checksum_type": "sha256",
		}})))
		cancelled := s.Create(i.Body(harness.SmallVM(nil)))
		s.Destroy(cancelled.ID)
		all.await(v.ID)
		s.WaitSettled(bad.ID)
		s.NextCallback()
		s.Destroy(v.ID)
		s.Destroy(bad.ID)
	}
	round()
	round()
	before := measureUsage(s)
	rounds := 0
	duration := time.Duration(harness.EnvInt(t, "SOAK_SECONDS", 0)) * time.Second
	for end := time.Now().Add(duration); time.Now().Before(end) || all.started < harness.EnvInt(t, "SOAK_BOOTS", 4); rounds++ {
		round()
	}
	all.report()
	after := measureUsage(s)
	left := countGoroutines(s)
	t.Logf("%d rounds of 3 machines each\nat the start: %v, %d goroutines\nat the end:   %v, %d goroutines",
		rounds, before, fresh, after, left)
	if after.descriptors > before.descriptors+2 || after.devices > before.devices || left > fresh+5 {
		t.Error("there are more descriptors, network devices or goroutines than at the start")
	}
	if after.threads > before.threads+8 { // Go keeps the threads of earlier system calls
		t.Errorf("the number of threads grew from %d to %d", before.threads, after.threads)
	}
	if after.rss > before.rss*3/2+32<<10 { // garbage that is not collected yet
		t.Errorf("the resident memory grew from %d to %d KiB", before.rss, after.rss)
	}
	if !slices.Equal(before.files, after.files) {
		t.Errorf("the files were %q and are %q", before.files, after.files)
	}
	if entries, err := os.ReadDir(temp); err != nil || len(entries) > 0 {
		t.Errorf("temporary files: %v, %v", entries, err)
	}
	s.Start() // to clean up after SIGQUIT
}

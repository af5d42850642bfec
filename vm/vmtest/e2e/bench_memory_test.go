package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

const (
	// residents is how many machines the daemon has in BenchmarkMemory.
	residents = 100

	// mostMemory is what it may then have of the host's, in MiB.
	mostMemory = 40
)

// BenchmarkMemory measures the resident memory of a daemon that has made 100
// machines, with the driver that has no hypervisor, and is asked for all of
// them, their health and its metrics.
func BenchmarkMemory(b *testing.B) {
	dir := b.TempDir()
	binary := harness.PlainMemoryDaemon(b)
	archive := harness.Archive(b, "a.vmx", "guestOS = \"other\"\n")
	harness.Must(b, os.WriteFile(filepath.Join(dir, "image"), archive, 0o600))
	site := e2e.NewSite(dir)
	defer site.Close()
	sum, err := e2e.SHA256(filepath.Join(dir, "image"))
	harness.Must(b, err)
	d, err := e2e.Start(e2e.Options{Binary: binary, Data: filepath.Join(dir, "data"), Args: []string{"-creations", fmt.Sprint(residents)}})
	harness.Must(b, err)
	defer func() { harness.Must(b, d.Stop()) }()
	body := e2e.Image{URL: site.ImageURL("image"), SHA256: sum}.Body(map[string]any{"callback_url": site.CallbackURL()})
	var ids []string
	for range residents {
		v, _, err := d.VM("POST", "/vms", body, http.StatusAccepted)
		harness.Must(b, err)
		ids = append(ids, v.ID)
	}
	for _, id := range ids {
		v, _, err := d.VM("GET", "/vms/"+id+"?wait=1m", nil, http.StatusOK)
		harness.Must(b, err)
		if v.Status != "powered-on" {
			b.Fatalf("got %+v, want it powered-on", v)
		}
	}
	for range 100 {
		for _, path := range []string{"/vms", "/healthz", "/metrics"} {
			a, err := d.Do("GET", path, "", nil)
			harness.Must(b, err)
			if a.Status != http.StatusOK {
				b.Fatalf("GET %s: got %d %s", path, a.Status, a.Body)
			}
		}
	}
	rss, peak := memory(b, d.PID(), "VmRSS"), memory(b, d.PID(), "VmHWM")
	b.ReportMetric(rss, "rss-MiB")
	b.ReportMetric(peak, "peak-MiB")
	b.ReportMetric(0, "ns/op")
	if rss > mostMemory {
		b.Errorf("with %d machines the daemon has %.1f MiB, want at most %d", residents, rss, mostMemory)
	}
}

// memory reads what Linux says of a process's memory, in MiB.
func memory(b *testing.B, pid int, what string) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Skipf("%v; only Linux tells", err)
	}
	m := regexp.MustCompile(what + `:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		b.Fatalf("no %s in %s", what, status)
	}
	kib, err := strconv.Atoi(string(m[1]))
	harness.Must(b, err)
	return float64(kib) / 1024
}

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
	// memoryMachines is the number of machines in BenchmarkMemory.
	memoryMachines = 100

	// maxRSS is the largest resident memory of the daemon then, in MiB.
	maxRSS = 40
)

// BenchmarkMemory measures the resident memory of a daemon that has created 100
// machines with the in-memory driver and has answered requests for the list of
// machines, the health and the metrics.
func BenchmarkMemory(b *testing.B) {
	dir := b.TempDir()
	binary := harness.PlainMemoryDaemon(b)
	archive := harness.Archive(b, "a.vmx", "guestOS = \"other\"\n")
	harness.Must(b, os.WriteFile(filepath.Join(dir, "image"), archive, 0o600))
	site := e2e.NewSite(dir)
	defer site.Close()
	i, err := site.Image("image")
	harness.Must(b, err)
	d, err := e2e.Start(e2e.Options{
		Binary: binary, Data: filepath.Join(dir, "data"), Args: []string{"-creations", fmt.Sprint(memoryMachines)},
	})
	harness.Must(b, err)
	defer func() { harness.Must(b, d.Stop()) }()
	body := i.Body(map[string]any{"callback_url": site.CallbackURL()})
	var ids []string
	for range memoryMachines {
		v, _, err := d.VM("POST", "/vms", body, http.StatusAccepted)
		harness.Must(b, err)
		ids = append(ids, v.ID)
	}
	for _, id := range ids {
		v, _, err := d.VM("GET", "/vms/"+id+"?wait=1m", nil, http.StatusOK)
		harness.Must(b, err)
		if v.Status != "powered-on" {
			b.Fatalf("got %+v, want powered-on", v)
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
	rss, peak := procMemory(b, d.PID(), "VmRSS"), procMemory(b, d.PID(), "VmHWM")
	b.ReportMetric(rss, "rss-MiB")
	b.ReportMetric(peak, "peak-MiB")
	b.ReportMetric(0, "ns/op")
	if rss > maxRSS {
		b.Errorf("the resident memory with %d machines is %.1f MiB, want at most %d", memoryMachines, rss, maxRSS)
	}
}

// procMemory returns a value of /proc/PID/status, in MiB.
func procMemory(b *testing.B, pid int, name string) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		harness.Without(b, err.Error()+"; only Linux has it")
	}
	m := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		b.Fatalf("no %s in %s", name, status)
	}
	kib, err := strconv.Atoi(string(m[1]))
	harness.Must(b, err)
	return float64(kib) / 1024
}

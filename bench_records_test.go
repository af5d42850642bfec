package main_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"osx-builder/api"
	"osx-builder/callback"
	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// records is how many machines there are in BenchmarkRecords.
const records = 1000

// startLimit is how long the start with that many may take.
const startLimit = time.Second

// BenchmarkRecords measures the start with 1,000 machines, and GET of one and
// of all, against a bare handler that reads one file.
func BenchmarkRecords(b *testing.B) {
	data := b.TempDir()
	images, err := image.Open(filepath.Join(data, "images"), image.Options{})
	mustB(b, err)
	sender := callback.New(callback.Options{})
	id := fillRecords(b, filepath.Join(data, "vms"))
	var vms *vm.Manager
	open := func() {
		vms, err = vm.Open(vm.Options{Dir: filepath.Join(data, "vms"), Driver: &vmtest.Driver{}, Hypervisor: "memory", Images: images, Callbacks: sender})
		mustB(b, err)
	}
	var start []time.Duration
	for range 5 {
		start = append(start, timed(b, open))
		vms.Close()
	}
	open()
	if took := median(start); took > startLimit {
		b.Errorf("the start with %d records takes %v, want at most %v", records, took, startLimit)
	}
	b.ReportMetric(float64(median(start).Microseconds())/1000, "start-ms")
	ours := httptest.NewServer(api.New(vms, api.Options{Log: slog.New(slog.DiscardHandler)}))
	base := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		text, err := os.ReadFile(filepath.Join(data, "vms", id+".json"))
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(text)
	}))
	var one, all pair
	for n := range 500 {
		one.ours = append(one.ours, timed(b, func() { fetchAll(b, ours.URL+"/vms/"+id) }))
		one.base = append(one.base, timed(b, func() { fetchAll(b, base.URL) }))
		if n%25 == 0 {
			all.ours = append(all.ours, timed(b, func() { fetchAll(b, ours.URL+"/vms") }))
			all.base = append(all.base, timed(b, func() { fetchAll(b, base.URL) }))
		}
	}
	one.report(b, "get")
	all.report(b, "list")
	ours.Close()
	base.Close()
	vms.Close()
	mustB(b, images.Close())
	sender.Close()
}

// fillRecords writes the records and folders of machines that run.
func fillRecords(b *testing.B, dir string) (id string) {
	b.Helper()
	for range records {
		id = uuid.NewString()
		now := time.Now().UTC()
		m := vm.Machine{ID: id, Dir: filepath.Join(dir, id), CPUs: 2, Memory: 512, Network: vm.NAT}
		mustB(b, os.MkdirAll(m.Dir, 0o700))
		for path, content := range map[string]any{
			filepath.Join(m.Dir, "machine.json"): map[string]any{"Machine": m, "Power": vm.PoweredOn},
			m.Dir + ".json": map[string]any{
				"version": 2, "id": id, "phase": vm.Ready, "attempts": 0, "created_at": now, "updated_at": now,
				"spec": map[string]any{
					"image": vm.Image{URL: "http://example.com/i", Checksum: "00", ChecksumType: "sha256"}, "cpus": 2, "memory": 512,
					"memory_text": "512mib", "network_type": vm.NAT,
				},
			},
		} {
			text, err := json.Marshal(content)
			mustB(b, err)
			mustB(b, os.WriteFile(path, text, 0o600))
		}
	}
	return id
}

func fetchAll(b *testing.B, url string) {
	b.Helper()
	res, err := http.Get(url)
	mustB(b, err)
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	mustB(b, err)
	if res.StatusCode != http.StatusOK {
		b.Fatalf("GET %s: got status %d", url, res.StatusCode)
	}
}

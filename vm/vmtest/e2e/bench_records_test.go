package e2e_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/julienschmidt/httprouter"

	"osx-builder/api"
	"osx-builder/api/server"
	"osx-builder/callback"
	"osx-builder/config"
	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/harness"
)

// recordCount is the number of machines in BenchmarkRecords.
const recordCount = 1000

// maxStartTime is the longest time that the daemon may take to start with them.
const maxStartTime = time.Second

// minRate is the lowest speed of reading, relative to the baseline.
const minRate = 0.5

// BenchmarkRecords measures the start with 1,000 machines, GET of one machine and
// GET of all, with the token, the log, the metrics and the connection limit. The
// baseline is an httprouter handler without these that reads the same files and
// writes the same bytes.
func BenchmarkRecords(b *testing.B) {
	data := b.TempDir()
	images, err := image.Open(filepath.Join(data, "images"), image.Options{})
	harness.Must(b, err)
	sender := callback.New(callback.Options{})
	dir := filepath.Join(data, "vms")
	id := writeRecords(b, dir, recordCount)
	metrics := api.NewMetrics("bench")
	var vms *vm.Manager
	open := func() {
		vms, err = vm.Open(vm.Options{
			Dir: dir, Driver: &vmtest.Driver{}, Hypervisor: "memory", Images: images, Callbacks: sender,
			Hooks: metrics.Hooks(),
		})
		harness.Must(b, err)
	}
	var start []time.Duration
	for range 5 {
		start = append(start, harness.Measure(open))
		vms.Close()
	}
	open()
	if took := harness.Median(start); took > maxStartTime {
		b.Errorf("the start with %d records took %v, want at most %v", recordCount, took, maxStartTime)
	}
	b.ReportMetric(float64(harness.Median(start).Microseconds())/1000, "start-ms")
	ours, stop := serveAPI(b, data, vms, metrics)
	baseline := httptest.NewServer(baselineReadHandler(dir, get(b, ours+"/vms/"+id), get(b, ours+"/vms")))
	var one, all samples
	for n := range 1000 {
		one.ours = append(one.ours, harness.Measure(func() { get(b, ours+"/vms/"+id) }))
		one.baseline = append(one.baseline, harness.Measure(func() { get(b, baseline.URL+"/vms/"+id) }))
		if n%25 == 0 {
			all.ours = append(all.ours, harness.Measure(func() { get(b, ours+"/vms") }))
			all.baseline = append(all.baseline, harness.Measure(func() { get(b, baseline.URL+"/vms") }))
		}
	}
	one.report(b, "get")
	all.report(b, "list")
	for name, p := range map[string]samples{"one machine": one, "all machines": all} {
		if rate := float64(harness.Median(p.baseline)) / float64(harness.Median(p.ours)); rate < minRate {
			b.Errorf("GET of %s has %.2f of the baseline's speed, want at least %.2f", name, rate, minRate)
		}
	}
	stop()
	baseline.Close()
	vms.Close()
	harness.Must(b, images.Close())
	sender.Close()
}

// benchToken is the token of the benchmark's requests.
const benchToken = "a-token-for-benchmarks"

// serveAPI serves the API as the daemon does, with its log in a file.
func serveAPI(b *testing.B, data string, vms *vm.Manager, metrics *api.Metrics) (url string, stop func()) {
	b.Helper()
	tokens := filepath.Join(data, "tokens")
	harness.Must(b, os.WriteFile(tokens, []byte(benchToken), 0o600))
	file, err := os.Create(filepath.Join(data, "log"))
	harness.Must(b, err)
	log := slog.New(slog.NewJSONHandler(file, nil))
	listener, err := server.Listen(server.Options{
		Listen: "127.0.0.1:0", Connections: 1000, ReadTokens: config.SecretFile(tokens, log), Log: log,
	})
	harness.Must(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		ended <- listener.Serve(ctx, nil, server.Service{
			Handler: api.New(vms, api.Options{Log: log, Metrics: metrics, FindToken: listener.FindToken()}),
			Stop:    func() {},
		})
	}()
	return listener.URL(), func() {
		cancel()
		harness.Must(b, <-ended)
		harness.Must(b, file.Close())
	}
}

// baselineReadHandler reads the files that GET of one machine and of all machines
// have to read, and responds with one and all.
func baselineReadHandler(dir string, one, all []byte) http.Handler {
	read := func(id string) error {
		_, err := os.ReadFile(filepath.Join(dir, id+".json"))
		if err == nil {
			_, err = os.ReadFile(filepath.Join(dir, id, "machine.json"))
		}
		return err
	}
	respond := func(w http.ResponseWriter, err error, text []byte) {
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text)
	}
	r := httprouter.New()
	r.GET("/vms/:id", func(w http.ResponseWriter, _ *http.Request, p httprouter.Params) {
		respond(w, read(p.ByName("id")), one)
	})
	r.GET("/vms", func(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) {
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			if id, ok := strings.CutSuffix(e.Name(), ".json"); ok && err == nil {
				err = read(id)
			}
		}
		respond(w, err, all)
	})
	return r
}

// writeRecords writes the records and folders of running machines and returns the
// ID of one.
func writeRecords(b *testing.B, dir string, count int) (id string) {
	b.Helper()
	for range count {
		id = uuid.NewString()
		now := time.Now().UTC()
		m := vm.Machine{ID: id, Dir: filepath.Join(dir, id), CPUs: 2, Memory: 512, Network: vm.NAT}
		harness.Must(b, os.MkdirAll(m.Dir, 0o700))
		for path, content := range map[string]any{
			filepath.Join(m.Dir, "machine.json"): map[string]any{"Machine": m, "Power": vm.PoweredOn},
			m.Dir + ".json": map[string]any{
				"version": 2, "id": id, "phase": vm.Ready, "attempts": 0, "created_at": now, "updated_at": now,
				"spec": map[string]any{
					"image": vm.Image{URL: "http://example.com/i", Checksum: "00", ChecksumType: "sha256"},
					"cpus":  2, "memory": 512, "memory_text": "512mib", "network_type": vm.NAT,
				},
			},
		} {
			text, err := json.Marshal(content)
			harness.Must(b, err)
			harness.Must(b, os.WriteFile(path, text, 0o600))
		}
	}
	return id
}

func get(b *testing.B, url string) []byte {
	b.Helper()
	req, err := http.NewRequest("GET", url, nil)
	harness.Must(b, err)
	req.Header.Set("Authorization", "Bearer "+benchToken)
	res, err := http.DefaultClient.Do(req)
	harness.Must(b, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	harness.Must(b, err)
	if res.StatusCode != http.StatusOK {
		b.Fatalf("GET %s: got status %d", url, res.StatusCode)
	}
	return text
}

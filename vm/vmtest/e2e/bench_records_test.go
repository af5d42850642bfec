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

// records is how many machines there are in BenchmarkRecords.
const records = 1000

// startLimit is how long the start with that many may take.
const startLimit = time.Second

// leastRate is how fast reading may be at least, as a part of the baseline.
const leastRate = 0.5

// BenchmarkRecords measures the start with 1,000 machines, and GET of one and
// of all with everything on that stands before the handlers: the token, the
// log, the metrics, the limit of connections. The baseline is a bare httprouter
// handler that reads the same files and writes the same bytes.
func BenchmarkRecords(b *testing.B) {
	data := b.TempDir()
	images, err := image.Open(filepath.Join(data, "images"), image.Options{})
	harness.Must(b, err)
	sender := callback.New(callback.Options{})
	dir := filepath.Join(data, "vms")
	id := fillRecords(b, dir)
	metrics := api.NewMetrics("bench")
	var vms *vm.Manager
	open := func() {
		vms, err = vm.Open(vm.Options{Dir: dir, Driver: &vmtest.Driver{}, Hypervisor: "memory", Images: images, Callbacks: sender, Hooks: metrics.Hooks()})
		harness.Must(b, err)
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
	ours, stop := serveAll(b, data, vms, metrics)
	base := httptest.NewServer(bareReader(dir, fetchAll(b, ours+"/vms/"+id), fetchAll(b, ours+"/vms")))
	var one, all pair
	for n := range 1000 {
		one.ours = append(one.ours, timed(b, func() { fetchAll(b, ours+"/vms/"+id) }))
		one.base = append(one.base, timed(b, func() { fetchAll(b, base.URL+"/vms/"+id) }))
		if n%25 == 0 {
			all.ours = append(all.ours, timed(b, func() { fetchAll(b, ours+"/vms") }))
			all.base = append(all.base, timed(b, func() { fetchAll(b, base.URL+"/vms") }))
		}
	}
	one.report(b, "get")
	all.report(b, "list")
	for name, p := range map[string]pair{"one machine": one, "all machines": all} {
		if rate := float64(median(p.base)) / float64(median(p.ours)); rate < leastRate {
			b.Errorf("GET of %s is %.2f as fast as the baseline, want at least %.2f", name, rate, leastRate)
		}
	}
	stop()
	base.Close()
	vms.Close()
	harness.Must(b, images.Close())
	sender.Close()
}

// benchToken lets in who measures.
const benchToken = "a-token-for-benchmarks"

// serveAll serves the API as the daemon does, its log in a file.
func serveAll(b *testing.B, data string, vms *vm.Manager, metrics *api.Metrics) (url string, stop func()) {
	b.Helper()
	tokens := filepath.Join(data, "tokens")
	harness.Must(b, os.WriteFile(tokens, []byte(benchToken), 0o600))
	file, err := os.Create(filepath.Join(data, "log"))
	harness.Must(b, err)
	log := slog.New(slog.NewJSONHandler(file, nil))
	front, err := server.Listen(server.Options{Listen: "127.0.0.1:0", Connections: 1000, ReadTokens: config.SecretFile(tokens, log), Log: log})
	harness.Must(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		ended <- front.Serve(ctx, nil, server.Service{
			Handler: api.New(vms, api.Options{Log: log, Metrics: metrics, Authorized: front.Authorized()}), Stop: func() {},
		})
	}()
	return front.URL(), func() {
		cancel()
		harness.Must(b, <-ended)
		harness.Must(b, file.Close())
	}
}

// bareReader reads what GET of one and of all machines has to read, and
// answers with the bytes that those answer with.
func bareReader(dir string, one, all []byte) http.Handler {
	read := func(id string) error {
		_, err := os.ReadFile(filepath.Join(dir, id+".json"))
		if err == nil {
			_, err = os.ReadFile(filepath.Join(dir, id, "machine.json"))
		}
		return err
	}
	answer := func(w http.ResponseWriter, err error, text []byte) {
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text)
	}
	r := httprouter.New()
	r.GET("/vms/:id", func(w http.ResponseWriter, _ *http.Request, p httprouter.Params) {
		answer(w, read(p.ByName("id")), one)
	})
	r.GET("/vms", func(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) {
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			if id, ok := strings.CutSuffix(e.Name(), ".json"); ok && err == nil {
				err = read(id)
			}
		}
		answer(w, err, all)
	})
	return r
}

// fillRecords writes the records and folders of machines that run.
func fillRecords(b *testing.B, dir string) (id string) {
	b.Helper()
	for range records {
		id = uuid.NewString()
		now := time.Now().UTC()
		m := vm.Machine{ID: id, Dir: filepath.Join(dir, id), CPUs: 2, Memory: 512, Network: vm.NAT}
		harness.Must(b, os.MkdirAll(m.Dir, 0o700))
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
			harness.Must(b, err)
			harness.Must(b, os.WriteFile(path, text, 0o600))
		}
	}
	return id
}

func fetchAll(b *testing.B, url string) []byte {
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

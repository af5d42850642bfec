package api_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"osx-builder/api"
	"osx-builder/api/token"
	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/harness"
)

// metricsServer is a testServer with all hooks of its metrics, and a receiver of callbacks.
type metricsServer struct {
	*testServer
	receiver string
	called   chan struct{}
}

func serveWithMetrics(t *testing.T) metricsServer {
	t.Helper()
	return serveMetricsOf(t, nil)
}

// serveMetricsOf is serveWithMetrics for clients with tokens.
func serveMetricsOf(t *testing.T, findToken func(string) (token.Token, bool)) metricsServer {
	t.Helper()
	m := metricsServer{called: make(chan struct{}, 10)}
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { m.called <- struct{}{} }))
	t.Cleanup(web.Close)
	m.receiver = web.URL
	metrics := api.NewMetrics("test")
	m.testServer = config{
		api:   api.Options{Metrics: metrics, FindToken: findToken},
		image: image.Options{Downloaded: metrics.Downloaded},
		vm: []func(*vm.Options){func(o *vm.Options) {
			o.Hooks, o.Creations, o.VMs, o.PerOwner = metrics.Hooks(), 3, 7, vm.OwnerLimits{VMs: 5, MemoryMiB: 4096}
			o.Pools = []vm.PoolOptions{{Checksum: "d41d8cd98f00b204e9800998ecf8427e", CPUs: 1, Memory: 64, Count: 2}}
		}},
	}.serve(t)
	return m
}

// hangingDriver is a driver whose Ready can be made to hang, even if its context ends.
type hangingDriver struct {
	*vmtest.Driver
	hang     atomic.Bool
	released chan struct{}
}

func (d *hangingDriver) Ready(context.Context) error {
	if d.hang.Load() {
		<-d.released
	}
	return nil
}

// scrape returns the answer of GET /metrics.
func (s *testServer) scrape() string {
	s.t.Helper()
	status, text := s.text("/metrics")
	if status != http.StatusOK || !strings.HasPrefix(text, "# HELP go_") {
		s.t.Errorf("GET /metrics: got %d %.100q, want 200 and Prometheus's text", status, text)
	}
	return text
}

// text returns the answer of a GET request, which need not be JSON.
func (s *testServer) text(path string, header ...string) (status int, body string) {
	s.t.Helper()
	req, err := http.NewRequest("GET", s.URL+path, nil)
	must(s.t, err)
	if len(header) > 0 {
		req.Header.Set(header[0], header[1])
	}
	res, err := http.DefaultClient.Do(req)
	must(s.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(s.t, err)
	return res.StatusCode, string(b)
}

// checkMetrics checks that the metrics contain each line.
func checkMetrics(t *testing.T, got string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+got, "\n"+line+"\n") && !(strings.HasSuffix(line, " ") && strings.Contains("\n"+got, "\n"+line)) {
			t.Errorf("the metrics do not contain %q", line)
		}
	}
	if t.Failed() {
		t.Logf("the metrics are\n%s", got)
	}
}

// A machine's life, a refused request and a failed creation change every metric.
func TestMetrics(t *testing.T) {
	s := serveWithMetrics(t)
	a := s.do("POST", "/vms", s.bodyWith("callback_url", `"`+s.receiver+`"`))
	path := a.header.Get("Location")
	s.do("GET", path+"?wait=1m", "")
	<-s.called
	s.do("POST", "/vms", s.bodyWith("cpus", "-1"))
	a = s.do("POST", "/vms", s.bodyWith("image.checksum", `"`+strings.Repeat("0", 40)+`"`))
	s.do("GET", a.header.Get("Location")+"?wait=1m", "")
	s.do("GET", "/none", "")
	s.do("BREW", "/vms", "")
	var got string
	for deadline := time.Now().Add(harness.Timeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got = s.scrape(); strings.Contains(got, `osx_builder_callback_attempts_total{outcome="delivered"} 1`) {
			break
		}
	}
	checkMetrics(t, got,
		`osx_builder_creations_total{outcome="ready"} 1`,
		`osx_builder_creations_total{outcome="invalid-field"} 1`,
		`osx_builder_creations_total{outcome="image-checksum-mismatch"} 1`,
		`osx_builder_phase_duration_seconds_count{phase="cloning"} 1`,
		`osx_builder_phase_seconds_count{phase="cloning"} 1`,
		`osx_builder_phase_seconds_count{phase="starting"} 1`,
		`osx_builder_phase_seconds_count{phase="waiting"} 1`,
		`osx_builder_image_downloads_total{outcome="whole"} 1`,
		`osx_builder_image_downloads_total{outcome="failed"} 1`,
		`osx_builder_image_download_bytes_total `,
		`osx_builder_images 1`,
		`osx_builder_image_disk_bytes `,
		`osx_builder_disk_free_bytes `,
		`osx_builder_vms{phase="ready",status="powered-on"} 1`,
		`osx_builder_vms{phase="failed",status="none"} 1`,
		`osx_builder_callback_attempts_total{outcome="delivered"} 1`,
		`osx_builder_http_requests_total{method="POST",route="/vms",status="202"} 2`,
		`osx_builder_http_requests_total{method="GET",route="/vms/:id",status="200"} 2`,
		`osx_builder_http_requests_total{method="GET",route="none",status="404"} 1`,
		`osx_builder_http_requests_total{method="other",route="none",status="405"} 1`,
		`osx_builder_http_request_seconds_count{method="POST",route="/vms"} 3`,
		`osx_builder_http_request_seconds_count{method="GET",route="/vms/:id"} 2`,
		`osx_builder_http_request_duration_seconds_count{method="POST",route="/vms"} 3`,
		`osx_builder_creations_in_progress 0`,
		`osx_builder_creations_limit 3`,
		`osx_builder_vms_limit 7`,
		`osx_builder_vm_cpus_limit 8`,
		`osx_builder_memory_promised_bytes 1.073741824e+09`,
		`osx_builder_pool_machines{cpus="1",image="md5-d41d8cd98f00b204e9800998ecf8427e",memory="64mib"} 0`,
		`osx_builder_pool_machines_wanted{cpus="1",image="md5-d41d8cd98f00b204e9800998ecf8427e",memory="64mib"} 2`,
		`osx_builder_pool_uses_total{result="miss"} 0`,
		`osx_builder_memory_limit_bytes 8.589934592e+09`,
		`go_goroutines `,
	)
	if strings.Contains(got, `osx_builder_http_request_duration_seconds_count{method="GET",route="/vms/:id"}`) {
		t.Errorf("requests with ?wait= count as latency: %s", got)
	}
	if strings.Contains(got, `outcome="failed"} 0`) || strings.Contains(got, "BREW") || strings.Contains(got, "osx_builder_image_download_bytes_total 0\n") {
		t.Errorf("got %s", got)
	}
}

// The metrics follow Prometheus's conventions, as promtool check metrics checks them.
func TestMetricsLint(t *testing.T) {
	s := serveWithMetrics(t)
	a := s.do("POST", "/vms", s.bodyWith("callback_url", `"`+s.receiver+`"`))
	s.do("GET", a.header.Get("Location")+"?wait=1m", "")
	<-s.called
	problems, err := promlint.New(strings.NewReader(s.scrape())).Lint()
	must(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// A stream is counted, but its duration is no latency.
func TestStreamsAreNoLatency(t *testing.T) {
	s := serveWithMetrics(t)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/events", nil)
	must(t, err)
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	cancel()
	must(t, res.Body.Close())
	const counted = `osx_builder_http_requests_total{method="GET",route="/events",status="200"} 1`
	var got string
	for deadline := time.Now().Add(harness.Timeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got = s.scrape(); strings.Contains(got, counted) {
			break
		}
	}
	checkMetrics(t, got, counted)
	if strings.Contains(got, `osx_builder_http_request_duration_seconds_count{method="GET",route="/events"}`) {
		t.Errorf("a stream counts as latency: %s", got)
	}
}

// OPERATIONS.md documents exactly the existing metrics.
func TestDocumentedMetrics(t *testing.T) {
	s := serveMetricsOf(t, func(string) (token.Token, bool) { return token.Token{Name: "ci", Scopes: token.Scopes()}, true })
	a := s.do("POST", "/vms", s.bodyWith("callback_url", `"`+s.receiver+`"`))
	s.do("GET", a.header.Get("Location")+"?wait=1m", "")
	<-s.called
	text, err := os.ReadFile("../OPERATIONS.md")
	must(t, err)
	documented := uniqueMatches(`osx_builder_\w+`, string(text))
	var existing []string
	for deadline := time.Now().Add(harness.Timeout); time.Now().Before(deadline) && !slices.Equal(existing, documented); time.Sleep(5 * time.Millisecond) {
		existing = uniqueMatches(`(?m)^# HELP (osx_builder_\w+)`, s.scrape()) // the callback is counted after the receiver got it
	}
	if !slices.Equal(existing, documented) {
		t.Errorf("the metrics are %q, OPERATIONS.md documents %q", existing, documented)
	}
}

// uniqueMatches returns the distinct matches of a pattern, sorted.
func uniqueMatches(pattern, text string) (list []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		list = append(list, m[len(m)-1])
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Metrics and health are answered while the hypervisor hangs, and show that it does.
func TestHangingHypervisor(t *testing.T) {
	released := make(chan struct{})
	driver := &hangingDriver{Driver: &vmtest.Driver{}, released: released}
	s := serve(t, func(o *vm.Options) { o.Driver = driver })
	a := s.do("POST", "/vms", s.seedBody())
	s.do("GET", a.header.Get("Location")+"?wait=1m", "")
	driver.Hook = func(context.Context, vmtest.Step, vm.Machine) error { <-released; return nil } // even if ctx ends
	driver.hang.Store(true)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			checkMetrics(t, s.scrape(), `osx_builder_vms{phase="ready",status="unknown"} 1`, `osx_builder_images 1`)
		})
		wg.Go(func() {
			status, health := s.text("/healthz")
			if status != http.StatusServiceUnavailable || !strings.Contains(health, "has not answered") || !strings.Contains(health, `"free_bytes"`) {
				t.Errorf("health: got %d %s, want 503, the reason and the disk", status, health)
			}
		})
	}
	wg.Wait()
	close(released)
}

// Two Metrics do not share a registry.
func TestMetricsAreSeparate(t *testing.T) {
	api.NewMetrics("a").Downloaded(1, nil)
	checkMetrics(t, serveWithMetrics(t).scrape(), `osx_builder_image_download_bytes_total 0`)
}

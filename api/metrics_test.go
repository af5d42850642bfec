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

	"osx-builder/api"
	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// metered is a service whose parts are counted, with a receiver of callbacks.
type metered struct {
	*service
	receiver string
	called   chan struct{}
}

func serveMetered(t *testing.T) metered {
	t.Helper()
	m := metered{called: make(chan struct{}, 10)}
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { m.called <- struct{}{} }))
	t.Cleanup(web.Close)
	m.receiver = web.URL
	counts := api.NewMetrics("test")
	m.service = rig{
		api:   api.Options{Metrics: counts},
		image: image.Options{Downloaded: counts.Downloaded},
		vm:    []func(*vm.Options){func(o *vm.Options) { o.Hooks = counts.Hooks() }},
	}.serve(t)
	return m
}

// hanging is a driver that can be made to hang, whatever becomes of contexts.
type hanging struct {
	*vmtest.Driver
	hangs atomic.Bool
	held  chan struct{}
}

// Ready implements vm.Readier.
func (h *hanging) Ready(context.Context) error {
	if h.hangs.Load() {
		<-h.held
	}
	return nil
}

// scrape is what GET /metrics says.
func (s *service) scrape() string {
	s.t.Helper()
	status, text := s.text("/metrics")
	if status != http.StatusOK || !strings.HasPrefix(text, "# HELP go_") {
		s.t.Errorf("GET /metrics: got %d %.100q, want 200 and Prometheus's text", status, text)
	}
	return text
}

// text gets a document, whatever its form.
func (s *service) text(path string, header ...string) (status int, body string) {
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

// tells checks that each line is among the metrics.
func tells(t *testing.T, got string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+got, "\n"+line+"\n") && !(strings.HasSuffix(line, " ") && strings.Contains("\n"+got, "\n"+line)) {
			t.Errorf("the metrics do not tell %q", line)
		}
	}
	if t.Failed() {
		t.Logf("they tell\n%s", got)
	}
}

// One machine's life, a refusal and a failure are seen in every metric.
func TestMetrics(t *testing.T) {
	s := serveMetered(t)
	a := s.do("POST", "/vms", s.with("callback_url", `"`+s.receiver+`"`))
	path := a.header.Get("Location")
	s.do("GET", path+"?wait=1m", "")
	<-s.called
	s.do("POST", "/vms", s.with("cpus", "-1"))
	a = s.do("POST", "/vms", s.with("image.checksum", `"`+strings.Repeat("0", 40)+`"`))
	s.do("GET", a.header.Get("Location")+"?wait=1m", "")
	s.do("GET", "/none", "")
	s.do("BREW", "/vms", "")
	var got string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got = s.scrape(); strings.Contains(got, `osx_builder_callback_attempts_total{outcome="delivered"} 1`) {
			break
		}
	}
	tells(t, got,
		`osx_builder_creations_total{outcome="ready"} 1`,
		`osx_builder_creations_total{outcome="invalid-field"} 1`,
		`osx_builder_creations_total{outcome="image-checksum-mismatch"} 1`,
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
		`go_goroutines `,
	)
	if strings.Contains(got, `outcome="failed"} 0`) || strings.Contains(got, "BREW") || strings.Contains(got, "osx_builder_image_download_bytes_total 0\n") {
		t.Errorf("got %s", got)
	}
}

// README explains the metrics that there are, and no others.
func TestReadmeExplainsMetrics(t *testing.T) {
	s := serveMetered(t)
	a := s.do("POST", "/vms", s.with("callback_url", `"`+s.receiver+`"`))
	s.do("GET", a.header.Get("Location")+"?wait=1m", "")
	<-s.called
	readme, err := os.ReadFile("../README.md")
	must(t, err)
	explained := names(`osx_builder_\w+`, string(readme))
	var there []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && !slices.Equal(there, explained); time.Sleep(5 * time.Millisecond) {
		there = names(`(?m)^# HELP (osx_builder_\w+)`, s.scrape()) // the callback is counted after its receiver has it
	}
	if !slices.Equal(there, explained) {
		t.Errorf("there are %q, README explains %q", there, explained)
	}
}

// names are the different matches of a pattern, in order.
func names(pattern, text string) (list []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		list = append(list, m[len(m)-1])
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Scrapes, and looks at the health, come back while the hypervisor hangs, and
// tell so.
func TestHangingHypervisor(t *testing.T) {
	held := make(chan struct{})
	hangs := &hanging{Driver: &vmtest.Driver{}, held: held}
	s := serve(t, func(o *vm.Options) { o.Driver = hangs })
	a := s.do("POST", "/vms", s.seed())
	s.do("GET", a.header.Get("Location")+"?wait=1m", "")
	hangs.Hook = func(context.Context, vmtest.Step, vm.Machine) error { <-held; return nil } // whatever becomes of ctx
	hangs.hangs.Store(true)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			tells(t, s.scrape(), `osx_builder_vms{phase="ready",status="unknown"} 1`, `osx_builder_images 1`)
		})
		wg.Go(func() {
			status, health := s.text("/healthz")
			if status != http.StatusServiceUnavailable || !strings.Contains(health, "has not answered") || !strings.Contains(health, `"free_bytes"`) {
				t.Errorf("health: got %d %s, want 503, the reason and the disk", status, health)
			}
		})
	}
	wg.Wait()
	close(held)
}

// Two Metrics do not share a registry.
func TestMetricsAreTheirOwn(t *testing.T) {
	api.NewMetrics("a").Downloaded(1, nil)
	tells(t, serveMetered(t).scrape(), `osx_builder_image_download_bytes_total 0`)
}

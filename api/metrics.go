package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"osx-builder/vm"
)

// Metrics are the metrics that GET /metrics returns. Create them before the parts that they measure, and pass
// [Metrics.Hooks] and [Metrics.Downloaded] to those.
type Metrics struct {
	registry         *prometheus.Registry
	creations        *prometheus.CounterVec
	phaseDurations   *prometheus.HistogramVec
	restarts         prometheus.Counter
	memoryStarts     *prometheus.CounterVec
	poolUses         *prometheus.CounterVec
	callbacks        *prometheus.CounterVec
	callbacksDropped prometheus.Counter
	downloads        *prometheus.CounterVec
	downloadBytes    prometheus.Counter
	requests         *prometheus.CounterVec
	tokenRequests    *prometheus.CounterVec
	requestDurations *prometheus.HistogramVec

	// The previous names of phaseDurations and requestDurations, for one version. The old request durations include
	// streams and waits.
	oldPhaseDurations, oldRequestDurations *prometheus.HistogramVec
}

// The buckets of the histograms, in seconds. A phase takes from milliseconds (cloning) to an hour (a large download).
var (
	phaseBuckets   = []float64{.01, .03, .1, .3, 1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600}
	requestBuckets = []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30, 60, 300, 600}
)

// The results of a creation that matches a pool.
const (
	poolHit  = "hit"
	poolMiss = "miss"
)

// NewMetrics returns metrics that are all zero.
func NewMetrics(version string) *Metrics {
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "osx_builder_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "osx_builder_" + name, Help: help, Buckets: buckets}, labels)
	}
	m := &Metrics{
		registry:         prometheus.NewRegistry(),
		creations:        counters("creations_total", "Creations by outcome: ready, or the code of the error.", "outcome"),
		phaseDurations:   histogram("phase_duration_seconds", "Time that creations spent in each phase that they completed.", phaseBuckets, "phase"),
		restarts:         prometheus.NewCounter(prometheus.CounterOpts{Name: "osx_builder_machine_restarts_total", Help: "Machines started once more because they died before their guest gave a sign of life."}),
		memoryStarts:     counters("memory_starts_total", "Machines that were to start from memory and became ready, by how they started: memory or boot.", "start"),
		poolUses:         counters("pool_uses_total", "Creations that match a pool, by whether a machine waited: hit or miss.", "result"),
		callbacks:        counters("callback_attempts_total", "Attempts to send a callback by outcome: delivered, pending (will be retried) or given-up.", "outcome"),
		callbacksDropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "osx_builder_callbacks_dropped_total", Help: "Callbacks of destroyed machines that were given up because too many waited to be sent."}),
		downloads:        counters("image_downloads_total", "Downloads of images by outcome: whole, or failed.", "outcome"),
		downloadBytes:    prometheus.NewCounter(prometheus.CounterOpts{Name: "osx_builder_image_download_bytes_total", Help: "Bytes received by image downloads."}),
		requests:         counters("http_requests_total", "Requests by route, method and status.", "route", "method", "status"),
		tokenRequests:    counters("token_requests_total", "Requests by the name of their token and status; those of tokens without a name are not counted.", "token", "status"),
		requestDurations: histogram("http_request_duration_seconds", "Duration of requests, without streams and requests with wait.", requestBuckets, "route", "method"),

		oldPhaseDurations:   histogram("phase_seconds", "Deprecated: use osx_builder_phase_duration_seconds.", phaseBuckets, "phase"),
		oldRequestDurations: histogram("http_request_seconds", "Deprecated: use osx_builder_http_request_duration_seconds. This one includes streams and requests with wait.", requestBuckets, "route", "method"),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "osx_builder_build_info", Help: "Always 1; the labels are the versions of the daemon and of Go.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()},
	})
	build.Set(1)
	for _, start := range vm.StartModes() {
		m.memoryStarts.WithLabelValues(string(start)) // shown before the first one
	}
	for _, result := range []string{poolHit, poolMiss} {
		m.poolUses.WithLabelValues(result)
	}
	m.registry.MustRegister(
		m.creations, m.phaseDurations, m.restarts, m.memoryStarts, m.poolUses, m.callbacks, m.callbacksDropped, m.downloads, m.downloadBytes, m.requests, m.tokenRequests, m.requestDurations, build,
		m.oldPhaseDurations, m.oldRequestDurations,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Hooks returns the hooks for [vm.Options].
func (m *Metrics) Hooks() vm.Hooks {
	return vm.Hooks{
		CreationEnded: m.created,
		PhaseEnded: func(p vm.Phase, took time.Duration) {
			m.phaseDurations.WithLabelValues(string(p)).Observe(took.Seconds())
			m.oldPhaseDurations.WithLabelValues(string(p)).Observe(took.Seconds())
		},
		MemoryStart:     m.startedFromMemory,
		PoolUsed:        m.poolUsed,
		Restarted:       m.restarts.Inc,
		CallbackTried:   func(s vm.CallbackState) { m.callbacks.WithLabelValues(string(s)).Inc() },
		CallbackDropped: m.callbacksDropped.Inc,
	}
}

func (m *Metrics) created(code vm.Code) {
	outcome := string(code)
	if code == "" {
		outcome = "ready"
	}
	m.creations.WithLabelValues(outcome).Inc()
}

func (m *Metrics) startedFromMemory(did bool) {
	start := vm.StartBoot
	if did {
		start = vm.StartMemory
	}
	m.memoryStarts.WithLabelValues(string(start)).Inc()
}

func (m *Metrics) poolUsed(hit bool) {
	result := poolMiss
	if hit {
		result = poolHit
	}
	m.poolUses.WithLabelValues(result).Inc()
}

// Downloaded counts a download. It is the hook for image.Options.
func (m *Metrics) Downloaded(bytes int64, err error) {
	outcome := "whole"
	if err != nil {
		outcome = "failed"
	}
	m.downloads.WithLabelValues(outcome).Inc()
	m.downloadBytes.Add(float64(bytes))
}

// requestDone counts an answered request. Unknown methods and routes are counted together, so that clients cannot create
// series without limit.
func (m *Metrics) requestDone(rec *responseRecorder, method string, duration time.Duration) {
	route := cmp.Or(rec.route, "none")
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodPut, http.MethodOptions:
	default:
		method = "other"
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(rec.status)).Inc()
	if rec.token != "" {
		m.tokenRequests.WithLabelValues(rec.token, strconv.Itoa(rec.status)).Inc()
	}
	m.oldRequestDurations.WithLabelValues(route, method).Observe(duration.Seconds())
	if !rec.waits {
		m.requestDurations.WithLabelValues(route, method).Observe(duration.Seconds())
	}
}

// handler returns the handler of GET /metrics.
func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, DisableCompression: true})
}

// creationRefused counts a request that was refused and did not create a machine.
func (m *Metrics) creationRefused(err error) {
	if known, ok := errors.AsType[*vm.Error](err); ok {
		m.created(known.Code)
	} else if !errors.Is(err, context.Canceled) {
		m.created(vm.CodeInternal)
	}
}

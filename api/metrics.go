package api

import (
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

// Metrics is what GET /metrics tells. It is made before the parts that it
// counts, which are given its hooks.
type Metrics struct {
	registry  *prometheus.Registry
	creations *prometheus.CounterVec
	phases    *prometheus.HistogramVec
	callbacks *prometheus.CounterVec
	downloads *prometheus.CounterVec
	bytes     prometheus.Counter
	requests  *prometheus.CounterVec
	took      *prometheus.HistogramVec
}

// The borders of the histograms, in seconds: a phase lasts from a clone's
// milliseconds to a large download's hour.
var (
	phaseBuckets   = []float64{.01, .03, .1, .3, 1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600}
	requestBuckets = []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30, 60, 300, 600}
)

// NewMetrics returns metrics that have counted nothing.
func NewMetrics(version string) *Metrics {
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "osx_builder_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "osx_builder_" + name, Help: help, Buckets: buckets}, labels)
	}
	m := &Metrics{
		registry:  prometheus.NewRegistry(),
		creations: counters("creations_total", "Creations by outcome: ready, or the code of the error.", "outcome"),
		phases:    histogram("phase_seconds", "How long creations were in each phase that they passed.", phaseBuckets, "phase"),
		callbacks: counters("callback_attempts_total", "Attempts to send a callback by outcome: delivered, pending (tried again) or given-up.", "outcome"),
		downloads: counters("image_downloads_total", "Downloads of images by outcome: whole, or failed.", "outcome"),
		bytes:     prometheus.NewCounter(prometheus.CounterOpts{Name: "osx_builder_image_download_bytes_total", Help: "Bytes that downloads of images brought."}),
		requests:  counters("http_requests_total", "Requests by route, method and status.", "route", "method", "status"),
		took:      histogram("http_request_seconds", "How long requests took, those that wait included.", requestBuckets, "route", "method"),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "osx_builder_build_info", Help: "1; the labels tell the daemon's version and that of Go.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(
		m.creations, m.phases, m.callbacks, m.downloads, m.bytes, m.requests, m.took, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Hooks is for vm.Options.
func (m *Metrics) Hooks() vm.Hooks {
	return vm.Hooks{
		Created: m.created,
		Passed: func(p vm.Phase, took time.Duration) {
			m.phases.WithLabelValues(string(p)).Observe(took.Seconds())
		},
		CalledBack: func(s vm.CallbackState) { m.callbacks.WithLabelValues(string(s)).Inc() },
	}
}

func (m *Metrics) created(code vm.Code) {
	outcome := string(code)
	if code == "" {
		outcome = "ready"
	}
	m.creations.WithLabelValues(outcome).Inc()
}

// Downloaded is for image.Options.
func (m *Metrics) Downloaded(bytes int64, err error) {
	outcome := "whole"
	if err != nil {
		outcome = "failed"
	}
	m.downloads.WithLabelValues(outcome).Inc()
	m.bytes.Add(float64(bytes))
}

// answered counts a request. Methods and routes are those of the API, so that
// no client makes as many series as it likes.
func (m *Metrics) answered(route, method string, status int, took time.Duration) {
	if route == "" {
		route = "none"
	}
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodPut, http.MethodOptions:
	default:
		method = "other"
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	m.took.WithLabelValues(route, method).Observe(took.Seconds())
}

// handler is GET /metrics.
func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, DisableCompression: true})
}

// refused counts a creation that was not accepted.
func (m *Metrics) refused(err error) {
	var known *vm.Error
	switch {
	case errors.As(err, &known):
		m.created(known.Code)
	case !errors.Is(err, context.Canceled):
		m.created(vm.CodeInternal)
	}
}

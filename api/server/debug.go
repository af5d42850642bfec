package server

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
)

// debugServer serves the profiler and nothing else. It listens on a loopback address, so only processes of this host
// reach it. It refuses requests that web pages send.
func debugServer(addr string, log *slog.Logger) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	_, port, _ := net.SplitHostPort(addr)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site := r.Header.Get("Sec-Fetch-Site")
		ownHost := r.Host == addr || r.Host == net.JoinHostPort("localhost", port)
		if !ownHost || (site != "" && site != "same-origin" && site != "none") {
			http.Error(w, "requests from web pages are refused", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

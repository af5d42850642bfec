package server

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
)

// debugServer is the profiler and nothing else. Only processes of this host
// reach it; of their requests those of web pages are refused.
func debugServer(at string, log *slog.Logger) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	_, port, _ := net.SplitHostPort(at)
	own := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site := r.Header.Get("Sec-Fetch-Site")
		named := r.Host == at || r.Host == net.JoinHostPort("localhost", port)
		if !named || (site != "" && site != "same-origin" && site != "none") {
			http.Error(w, "requests of web pages are refused", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
	return &http.Server{
		Handler: own, ReadHeaderTimeout: headerTime, ReadTimeout: readTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// Package server serves the API on a TCP port or a Unix socket: it handles TLS and tokens, limits what one client can
// use, and shuts down in order.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"osx-builder/api/token"
)

// The limits of one connection. Bodies have at most 1 MiB, so a client that needs longer than readTimeout occupies a
// connection without using it. Handlers that need longer than writeTimeout extend their own deadline.
const (
	headerTimeout = 10 * time.Second // from a request's first byte to the end of its header
	readTimeout   = 30 * time.Second // to the end of its body
	writeTimeout  = 5 * time.Minute  // to the end of its answer
	idleTimeout   = 2 * time.Minute  // between two requests
	maxHeader     = 64 << 10         // bytes

	// shutdownTimeout is the time that requests under way have to end once the daemon stops.
	shutdownTimeout = 5 * time.Second
)

// Options configures a [Server].
type Options struct {
	Listen      string // host:port, or unix: and a path
	Connections int    // the largest number of open connections; Listen lowers it to fit the limit of open files
	TLSCert     string // paths of PEM files; either both are set or neither is
	TLSKey      string
	Debug       string // loopback host:port of the profiler; if empty, there is none
	Log         *slog.Logger

	// ReadTokens calls parse for each line of the file of tokens that has one, and returns its error. If it is nil, no
	// token is needed.
	ReadTokens func(parse func(line string) error) error
}

// Server holds the open sockets. [Server.Reload] may be called at any time.
type Server struct {
	Options
	url    string
	api    *connLimiter
	tokens *token.File  // nil if no token is needed
	cert   *certificate // nil without TLS
	debug  net.Listener // nil without a profiler
}

// Listen opens the sockets and reads the files. Requests wait until [Server.Serve] is called. [Server.Close] closes
// what Listen opened.
func Listen(o Options) (*Server, error) {
	s := &Server{Options: o}
	if err := s.open(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) open() (err error) {
	if s.ReadTokens != nil {
		if s.tokens, err = token.Open(s.ReadTokens); err != nil {
			return err
		}
	}
	if s.TLSCert != "" {
		if s.cert, err = openCertificate(s.TLSCert, s.TLSKey); err != nil {
			return err
		}
	}
	l, err := listen(s.Options.Listen)
	if err != nil {
		return fmt.Errorf("listening on %s: %w; choose another address with -listen", s.Options.Listen, err)
	}
	if most, openFiles := maxConnections(); s.Connections > most {
		s.Log.Warn("lowered -connections to fit the limit of open files; raise it with ulimit -n or systemd's LimitNOFILE", "connections", most, "configured", s.Connections, "open_files", openFiles)
		s.Connections = most
	}
	s.api = newConnLimiter(l, s.Connections)
	s.url = listenerURL(l, s.cert != nil)
	if s.Debug != "" {
		if s.debug, err = net.Listen("tcp", s.Debug); err != nil {
			return fmt.Errorf("listening on %s: %w; choose another address with -debug-listen", s.Debug, err)
		}
	}
	return nil
}

// URL returns the address of the API: http://, https:// or unix:.
func (s *Server) URL() string { return s.url }

// FindToken returns the function that finds a valid token. It returns nil if no token is needed.
func (s *Server) FindToken() func(text string) (t token.Token, ok bool) {
	if s.tokens == nil {
		return nil
	}
	return s.tokens.Find
}

// Reload reads the tokens and the certificate again. If that fails, the previous ones stay in use.
func (s *Server) Reload() (err error) {
	if s.tokens != nil {
		err = s.tokens.Reload()
	}
	if s.cert != nil {
		err = errors.Join(err, s.cert.reload())
	}
	return err
}

// Close closes the sockets.
func (s *Server) Close() {
	if s.api != nil {
		_ = s.api.Close() // Serve may have closed it already
	}
	if s.debug != nil {
		_ = s.debug.Close()
	}
}

// Service is what a [Server] serves.
type Service struct {
	Handler http.Handler
	Reload  func() error // called on SIGHUP, before the Server's own Reload
	Stop    func()       // called when the shutdown begins; it makes waiting requests end
}

// Serve answers requests until ctx ends. Then it waits for the requests under way. Each value received from hangup
// makes it reload.
func (s *Server) Serve(ctx context.Context, hangup <-chan os.Signal, v Service) error {
	web := s.httpServer(v.Handler)
	web.RegisterOnShutdown(v.Stop)
	failed := make(chan error, 2)
	go func() { failed <- s.serveHTTP(web) }()
	if s.debug != nil {
		profiler := debugServer(s.debug.Addr().String(), s.Log)
		defer profiler.Close()
		go func() { failed <- profiler.Serve(s.debug) }()
		s.Log.Info("profiler listening", "url", "http://"+s.debug.Addr().String()+"/debug/pprof/")
	}
	s.warnCleartext()
	s.Log.Info("listening", s.urls()...)
	s.notifySystemd(systemd.SdNotifyReady)
	for {
		select {
		case err := <-failed:
			return fmt.Errorf("serving HTTP: %w", errors.Join(err, web.Close()))
		case <-hangup:
			if err := errors.Join(v.Reload(), s.Reload()); err != nil {
				s.Log.Error("reloading failed; the previous settings stay in use", "err", err)
			} else {
				s.Log.Info("reloaded the log file, secrets, tokens and certificate")
			}
			continue
		case <-ctx.Done():
		}
		break
	}
	s.Log.Info("stopping; machines keep running")
	s.notifySystemd(systemd.SdNotifyStopping)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := web.Shutdown(ctx); err != nil {
		return web.Close() // requests that are still unanswered are cut off
	}
	return nil
}

// urls returns the addresses for the log: of the API, and of the page if a browser can open it.
func (s *Server) urls() []any {
	if s.api.Addr().Network() == "unix" {
		return []any{"url", s.url}
	}
	return []any{"url", s.url, "page", s.url + "/"}
}

// httpServer returns the HTTP server of the API. It speaks only HTTP/1: the limits apply to connections, and one HTTP/2
// connection carries many requests.
func (s *Server) httpServer(h http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	web := &http.Server{
		Handler: s.api.trackBodies(h), Protocols: protocols, ConnState: s.api.connState, ConnContext: s.api.connContext,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	if s.cert != nil {
		web.TLSConfig = s.cert.config()
	}
	return web
}

func (s *Server) serveHTTP(web *http.Server) error {
	if s.cert != nil {
		return web.ServeTLS(s.api, "", "")
	}
	return web.Serve(s.api)
}

// warnCleartext logs a warning if tokens cross a network unencrypted.
func (s *Server) warnCleartext() {
	tcp, ok := s.api.Addr().(*net.TCPAddr)
	if ok && s.tokens != nil && s.cert == nil && !tcp.IP.IsLoopback() {
		s.Log.Warn("tokens and everything else cross the network unencrypted; serve TLS with -tls-cert and -tls-key, or put a proxy with TLS in front of the daemon")
	}
}

// notifySystemd reports the daemon's state to systemd. It does nothing if systemd did not start the daemon.
func (s *Server) notifySystemd(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		s.Log.Warn("notifying systemd failed", "state", state, "err", err)
	}
}

// Package server puts the API on the network: its socket, TLS and tokens, the
// bounds of what clients may cost, and an orderly end.
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
)

// The bounds of what one connection may cost. Bodies have at most 1 MiB, so a
// client that needs longer than readTime holds a place and does not use it.
// Handlers whose answer takes longer than writeTime give themselves more.
const (
	headerTime = 10 * time.Second // from a request's first byte to the end of its header
	readTime   = 30 * time.Second // to the end of its body
	writeTime  = 5 * time.Minute  // to the end of its answer
	idleTime   = 2 * time.Minute  // between two requests
	maxHeader  = 64 << 10         // bytes

	// drainTime is what requests under way get to end once the daemon stops.
	drainTime = 5 * time.Second
)

// Options says where and how to serve.
type Options struct {
	Listen      string // host:port, or unix: and a path
	Connections int    // of clients at once
	TLSCert     string // paths of PEM files; both or neither ""
	TLSKey      string
	TokenFile   string // "" lets everybody in
	Debug       string // loopback host:port of the profiler, "" for none
	Log         *slog.Logger
}

// Server has the sockets. Reload may be called at any time.
type Server struct {
	Options
	url    string
	api    *limiter
	tokens *tokens      // nil without
	cert   *certificate // nil without
	debug  net.Listener // nil without
}

// Listen opens the sockets and reads the files. Nothing is answered before
// Serve. What Listen opened, Close closes.
func Listen(o Options) (*Server, error) {
	s := &Server{Options: o}
	if err := s.open(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) open() (err error) {
	if s.TokenFile != "" {
		if s.tokens, err = openTokens(s.TokenFile, s.Log); err != nil {
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
	s.api = newLimiter(l, s.Connections)
	s.url = address(l, s.cert != nil)
	if s.Debug != "" {
		if s.debug, err = net.Listen("tcp", s.Debug); err != nil {
			return fmt.Errorf("listening on %s: %w; choose another address with -debug-listen", s.Debug, err)
		}
	}
	return nil
}

// URL is where the API is: http://, https:// or unix:.
func (s *Server) URL() string { return s.url }

// Authorized returns what tells whether a token lets its bearer in; nil where
// everybody may.
func (s *Server) Authorized() func(token string) bool {
	if s.tokens == nil {
		return nil
	}
	return s.tokens.valid
}

// Reload reads the tokens and the certificate anew. After an error those of
// before hold.
func (s *Server) Reload() (err error) {
	if s.tokens != nil {
		err = s.tokens.reload()
	}
	if s.cert != nil {
		err = errors.Join(err, s.cert.reload())
	}
	return err
}

// Close closes the sockets.
func (s *Server) Close() {
	if s.api != nil {
		_ = s.api.Close() // Serve may have closed it
	}
	if s.debug != nil {
		_ = s.debug.Close()
	}
}

// Service is what a Server serves.
type Service struct {
	Handler http.Handler
	Reload  func() error // what SIGHUP asks for, beside the Server's own
	Stop    func()       // is called as the end begins; those who wait for an answer have theirs then
}

// Serve answers requests until ctx ends, and lets those under way end then.
// Each value of hangup makes it reload.
func (s *Server) Serve(ctx context.Context, hangup <-chan os.Signal, v Service) error {
	web := s.web(v.Handler)
	web.RegisterOnShutdown(v.Stop)
	failed := make(chan error, 2)
	go func() { failed <- s.run(web) }()
	if s.debug != nil {
		profiler := debugServer(s.debug.Addr().String(), s.Log)
		defer profiler.Close()
		go func() { failed <- profiler.Serve(s.debug) }()
		s.Log.Info("profiler listening", "url", "http://"+s.debug.Addr().String()+"/debug/pprof/")
	}
	s.warn()
	s.Log.Info("listening", "url", s.url)
	s.notify(systemd.SdNotifyReady)
	for {
		select {
		case err := <-failed:
			return fmt.Errorf("serving HTTP: %w", errors.Join(err, web.Close()))
		case <-hangup:
			if err := errors.Join(v.Reload(), s.Reload()); err != nil {
				s.Log.Error("not all was read anew; what was read before holds", "err", err)
			} else {
				s.Log.Info("log file, secrets, tokens and certificate read anew")
			}
			continue
		case <-ctx.Done():
		}
		break
	}
	s.Log.Info("stopping; machines keep running")
	s.notify(systemd.SdNotifyStopping)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := web.Shutdown(ctx); err != nil {
		return web.Close() // those that still have no answer are cut off
	}
	return nil
}

// web is the server of the API. It speaks HTTP/1 alone: its bounds are those
// of connections, and one of HTTP/2 carries many requests.
func (s *Server) web(h http.Handler) *http.Server {
	one := new(http.Protocols)
	one.SetHTTP1(true)
	web := &http.Server{
		Handler: s.api.owing(h), Protocols: one, ConnState: s.api.state, ConnContext: s.api.context,
		ReadHeaderTimeout: headerTime, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	if s.cert != nil {
		web.TLSConfig = s.cert.config()
	}
	return web
}

func (s *Server) run(web *http.Server) error {
	if s.cert != nil {
		return web.ServeTLS(s.api, "", "")
	}
	return web.Serve(s.api)
}

// warn tells of tokens that whoever is on the way can read.
func (s *Server) warn() {
	tcp, ok := s.api.Addr().(*net.TCPAddr)
	if ok && s.tokens != nil && s.cert == nil && !tcp.IP.IsLoopback() {
		s.Log.Warn("tokens and all else cross the network in the clear; serve TLS with -tls-cert and -tls-key, or put a proxy that does before the daemon")
	}
}

// notify tells systemd how far the daemon is, where it is systemd that runs it.
func (s *Server) notify(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		s.Log.Warn("systemd not notified", "state", state, "err", err)
	}
}

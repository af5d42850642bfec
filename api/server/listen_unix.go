//go:build !windows

package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	// socketMode gives the socket's owner and group access.
	socketMode = 0o660

	// probeTimeout is the longest time another daemon on a socket may take to accept a connection.
	probeTimeout = 5 * time.Second
)

// listen opens a TCP port or a Unix socket.
func listen(addr string) (net.Listener, error) {
	path, ok := strings.CutPrefix(addr, unixPrefix)
	if !ok {
		return net.Listen("tcp", addr)
	}
	if err := removeStaleSocket(path); err != nil {
		return nil, err
	}
	// The socket exists before its mode can be set. Until then only its owner may connect.
	umask := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(umask)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeStaleSocket removes the socket of a daemon that was killed. It returns an error if a process answers on the
// socket, or if path is another kind of file.
func removeStaleSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	c, err := net.DialTimeout("unix", path, probeTimeout)
	switch {
	case err == nil:
		_ = c.Close()
		return fmt.Errorf("another process listens on %s", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return err
	}
	return os.Remove(path)
}

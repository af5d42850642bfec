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
	unixPrefix = "unix:"

	// socketMode lets the socket's owner and group in.
	socketMode = 0o660

	// answerTime is what a daemon on a socket may take to take a connection.
	answerTime = 5 * time.Second
)

// listen opens a TCP port or a Unix socket.
func listen(at string) (net.Listener, error) {
	path, ok := strings.CutPrefix(at, unixPrefix)
	if !ok {
		return net.Listen("tcp", at)
	}
	if err := clear(path); err != nil {
		return nil, err
	}
	// The socket is there before its mode can be set: until then nobody but
	// its owner may connect.
	before := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(before)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// clear removes the socket of a daemon that was killed. One that answers, and
// what is no socket, stays.
func clear(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket", path)
	}
	c, err := net.DialTimeout("unix", path, answerTime)
	switch {
	case err == nil:
		_ = c.Close()
		return fmt.Errorf("another process listens on %s", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return err
	}
	return os.Remove(path)
}

// address is how clients write where l is.
func address(l net.Listener, tls bool) string {
	switch {
	case l.Addr().Network() == "unix":
		return unixPrefix + l.Addr().String()
	case tls:
		return "https://" + l.Addr().String()
	default:
		return "http://" + l.Addr().String()
	}
}

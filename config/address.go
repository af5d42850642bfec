package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unicode"
)

// UnixPrefix precedes the path of a socket in [Config].Listen.
const UnixPrefix = "unix:"

// maxSocket is the longest path of a socket, in bytes, that every system allows.
const maxSocket = 103

// addressValue is a host and a port to listen on. The host is an IP address, a name, or empty for every address of this
// host. The port is a number.
type addressValue struct{ target *string }

func (v addressValue) String() string { return *v.target }

func (v addressValue) Set(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("must be host:port, as in 127.0.0.1:12345 or [::1]:12345")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return errors.New("must end in a port from 0 to 65535")
	}
	if ip, err := netip.ParseAddr(host); !isName(host) && (err != nil || !isName(ip.Zone())) {
		return errors.New("must begin with an IP address or a host name")
	}
	*v.target = s
	return nil
}

// listenValue is an address, or unix: and the path of a socket.
type listenValue struct{ target *string }

func (v listenValue) String() string { return *v.target }

func (v listenValue) Set(s string) error {
	socket, ok := strings.CutPrefix(s, UnixPrefix)
	if !ok {
		return addressValue(v).Set(s)
	}
	if runtime.GOOS == "windows" {
		return errors.New("must be host:port, as in 127.0.0.1:12345; there are no Unix sockets on Windows")
	}
	invalid := strings.ContainsFunc(socket, unicode.IsControl)
	if invalid || !filepath.IsAbs(socket) || strings.HasSuffix(socket, "/") || len(socket) > maxSocket {
		return fmt.Errorf("must have an absolute path of at most %d bytes after unix:, as in unix:/run/osx-builder.sock", maxSocket)
	}
	*v.target = s
	return nil
}

// hostNamesValue is a list of host names.
type hostNamesValue struct{ target *[]string }

func (v hostNamesValue) String() string { return strings.Join(*v.target, ",") }

func (v hostNamesValue) Set(s string) error {
	var list []string
	for word := range strings.SplitSeq(s, ",") {
		switch word = strings.TrimSpace(word); {
		case word == "":
		case !isName(word) || strings.HasPrefix(word, "."):
			return fmt.Errorf("%q must be a host name, as in build.example.com; separate several by commas", word)
		default:
			list = append(list, word)
		}
	}
	*v.target = list
	return nil
}

// loopbackValue is an address that only this host can reach, or empty.
type loopbackValue struct{ target *string }

func (v loopbackValue) String() string { return *v.target }

func (v loopbackValue) Set(s string) error {
	if s == "" {
		*v.target = ""
		return nil
	}
	if err := (addressValue{new(string)}).Set(s); err != nil {
		return err
	}
	if !isLoopback(s) {
		return errors.New("must be an address that only this host can reach, as in 127.0.0.1:6060")
	}
	*v.target = s
	return nil
}

// isName reports whether s can be a host name or is empty.
func isName(s string) bool {
	for _, c := range s {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}

// isLoopback reports whether only this host can reach the address. Of all names it accepts only localhost, because the
// address of any other name can change.
func isLoopback(s string) bool {
	if strings.HasPrefix(s, UnixPrefix) {
		return true
	}
	host, _, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// ClientHosts lists the host names by which clients may address the daemon: those of the settings, and the one that it
// listens on.
func (c Config) ClientHosts() []string {
	host, _, _ := net.SplitHostPort(c.Listen) // none of a socket
	return append([]string{host}, c.HostNames...)
}

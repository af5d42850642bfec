package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
)

// UnixPrefix is what a Config's Listen begins with where it is a socket's path.
const UnixPrefix = "unix:"

// maxSocket is how long every system lets the path of a socket be, in bytes.
const maxSocket = 103

// address is a host and a port to listen on. The host is an IP address, a
// name, or empty for every address of this host; the port is a number.
type address struct{ at *string }

func (v address) String() string { return *v.at }

func (v address) Set(s string) error {
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
	*v.at = s
	return nil
}

// place is an address, or unix: and the path of a socket.
type place struct{ at *string }

func (v place) String() string { return *v.at }

func (v place) Set(s string) error {
	socket, ok := strings.CutPrefix(s, UnixPrefix)
	if !ok {
		return address(v).Set(s)
	}
	odd := strings.ContainsFunc(socket, unicode.IsControl)
	if odd || !filepath.IsAbs(socket) || strings.HasSuffix(socket, "/") || len(socket) > maxSocket {
		return fmt.Errorf("must have an absolute path of at most %d bytes after unix:, as in unix:/run/osx-builder.sock", maxSocket)
	}
	*v.at = s
	return nil
}

// names is a list of host names.
type names struct{ at *[]string }

func (v names) String() string { return strings.Join(*v.at, ",") }

func (v names) Set(s string) error {
	var list []string
	for word := range strings.SplitSeq(s, ",") {
		switch word = strings.TrimSpace(word); {
		case word == "":
		case !isName(word) || strings.HasPrefix(word, "."):
			return fmt.Errorf("%q must be a host name, as in build.example.com, and several are separated by commas", word)
		default:
			list = append(list, word)
		}
	}
	*v.at = list
	return nil
}

// inside is an address that only this host reaches, or empty.
type inside struct{ at *string }

func (v inside) String() string { return *v.at }

func (v inside) Set(s string) error {
	if s == "" {
		*v.at = ""
		return nil
	}
	if err := (address{new(string)}).Set(s); err != nil {
		return err
	}
	if !loopback(s) {
		return errors.New("must be an address that only this host reaches, as in 127.0.0.1:6060")
	}
	*v.at = s
	return nil
}

// isName reports whether s can be the name of a host, or is empty.
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

// loopback reports whether only this host reaches the address. Of names it
// trusts localhost alone: what another leads to is not known before it is
// resolved, and may change after.
func loopback(s string) bool {
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

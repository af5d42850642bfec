package config

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

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

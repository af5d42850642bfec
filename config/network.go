package config

import (
	"errors"
	"net/netip"
	"strings"
	"unicode"
)

// maxDevice is the longest name of a network device on Linux, in bytes.
const maxDevice = 15

// deviceValue is the name of a network device, or empty.
type deviceValue struct{ target *string }

func (v deviceValue) String() string { return *v.target }

func (v deviceValue) Set(s string) error {
	invalid := func(c rune) bool { return c == '/' || unicode.IsSpace(c) || unicode.IsControl(c) }
	if len(s) > maxDevice || s == "." || s == ".." || strings.ContainsFunc(s, invalid) {
		return errors.New("must be the name of a network device, as in br0: at most 15 bytes without spaces and slashes")
	}
	*v.target = s
	return nil
}

// subnetValue is an IPv4 subnet in CIDR form, or empty.
type subnetValue struct{ target *string }

func (v subnetValue) String() string { return *v.target }

func (v subnetValue) Set(s string) error {
	if s == "" {
		*v.target = ""
		return nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 29 {
		return errors.New("must be an IPv4 subnet from /8 to /29, as in 10.20.30.0/24")
	}
	*v.target = p.Masked().String()
	return nil
}

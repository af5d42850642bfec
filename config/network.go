package config

import (
	"errors"
	"net/netip"
	"strings"
	"unicode"
)

// maxDevice is how long Linux lets the name of a network device be, in bytes.
const maxDevice = 15

// device is the name of a network device, or empty.
type device struct{ at *string }

func (v device) String() string { return *v.at }

func (v device) Set(s string) error {
	odd := func(c rune) bool { return c == '/' || unicode.IsSpace(c) || unicode.IsControl(c) }
	if len(s) > maxDevice || s == "." || s == ".." || strings.ContainsFunc(s, odd) {
		return errors.New("must be the name of a network device, as in br0: at most 15 bytes without blanks and slashes")
	}
	*v.at = s
	return nil
}

// subnet is an IPv4 subnet in CIDR form, or empty.
type subnet struct{ at *string }

func (v subnet) String() string { return *v.at }

func (v subnet) Set(s string) error {
	if s == "" {
		*v.at = ""
		return nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 29 {
		return errors.New("must be an IPv4 subnet from /8 to /29, as in 10.20.30.0/24")
	}
	*v.at = p.Masked().String()
	return nil
}

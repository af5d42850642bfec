package vm

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"code.dny.dev/ssrf"
)

// Hosts says to which hosts the URLs of images and callbacks may lead. Names are
// compared with the URL's host, addresses with the address that is dialled, so
// that a name that resolves to another address later gains nothing.
//
// Link-local addresses, the metadata services of clouds, and multicast and
// reserved addresses are denied unless the allowed addresses or networks name
// them, or a network within theirs. The nil Hosts allows everything.
type Hosts struct {
	allow, deny hostList
	special     *ssrf.Guardian
}

// hostList is the value of one setting.
type hostList struct {
	names []string // lower case; a name that begins with a dot means all names below it
	nets  []netip.Prefix
}

func (l hostList) empty() bool { return len(l.names) == 0 && len(l.nets) == 0 }

// NewHosts makes Hosts from two lists of host names, IP addresses and networks in
// CIDR form. A name that begins with a dot means all names that end in it. deny
// wins over allow. If allow is not empty, everything else is denied: if it has a
// name, a URL's host must be one of its names, or an address in its networks; if
// it has none, the dialled address must be in its networks.
func NewHosts(allow, deny []string) (*Hosts, error) {
	h := &Hosts{}
	var err error
	if h.allow, err = parseHosts(allow); err != nil {
		return nil, err
	}
	if h.deny, err = parseHosts(deny); err != nil {
		return nil, err
	}
	v4, v6 := privateNets()
	for _, n := range h.allow.nets {
		switch {
		case n.Addr().Is4() && within(n, ssrf.IPv4DeniedPrefixes):
			v4 = append(v4, n)
		case n.Addr().Is6() && !ssrf.IPv6GlobalUnicast.Overlaps(n) || within(n, ssrf.IPv6DeniedPrefixes):
			v6 = append(v6, n)
		}
	}
	h.special = ssrf.New(ssrf.WithAnyNetwork(), ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))
	return h, nil
}

// privateNets are networks that the Internet does not route, but build farms use.
func privateNets() (v4, v6 []netip.Prefix) {
	for _, n := range []string{"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15"} {
		v4 = append(v4, netip.MustParsePrefix(n))
	}
	for _, n := range []string{"::1/128", "fc00::/7"} {
		v6 = append(v6, netip.MustParsePrefix(n))
	}
	return v4, v6
}

// metadata lists the metadata services of clouds that have no link-local address:
// Amazon over IPv6, Google over IPv6, Alibaba, Oracle and Azure. They return
// secrets.
func metadata() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("fd00:ec2::254/128"), netip.MustParsePrefix("fd20:ce::254/128"),
		netip.MustParsePrefix("100.100.100.200/32"), netip.MustParsePrefix("192.0.0.192/32"),
		netip.MustParsePrefix("168.63.129.16/32"),
	}
}

func within(n netip.Prefix, nets []netip.Prefix) bool {
	return slices.ContainsFunc(nets, func(o netip.Prefix) bool { return o.Bits() <= n.Bits() && o.Contains(n.Addr()) })
}

func parseHosts(words []string) (l hostList, err error) {
	for _, word := range words {
		if n, err := netip.ParsePrefix(word); err == nil {
			l.nets = append(l.nets, n.Masked())
		} else if ip, err := netip.ParseAddr(word); err == nil {
			ip = ip.Unmap().WithZone("")
			l.nets = append(l.nets, netip.PrefixFrom(ip, ip.BitLen()))
		} else if name := plainName(strings.TrimPrefix(word, "*")); name != "" && !strings.ContainsAny(name, "/:@ *") {
			l.names = append(l.names, name)
		} else {
			return l, fmt.Errorf("%q is not a host name, IP address or network", word)
		}
	}
	return l, nil
}

func plainName(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

func (l hostList) hasName(name string) bool {
	return slices.ContainsFunc(l.names, func(n string) bool {
		return n == name || n[0] == '.' && strings.HasSuffix(name, n)
	})
}

func (l hostList) hasAddr(ip netip.Addr) bool {
	return slices.ContainsFunc(l.nets, func(n netip.Prefix) bool { return n.Contains(ip) })
}

// CheckURL checks the host of a URL that a redirect leads to, as the host of a
// request's own URL is checked. Its errors are *[Error] of [CodeHostDenied].
func (h *Hosts) CheckURL(u *url.URL) error { return h.checkHost("", u) }

// checkURL checks the host of the URL in a request's field.
func (h *Hosts) checkURL(field, raw string) error {
	if h == nil {
		return nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return fieldError(field, fmt.Sprintf("%q", raw), "an absolute http or https URL")
	}
	return h.checkHost(field, u)
}

// checkHost refuses what is known before a name is resolved: the name itself, or
// an address in the URL.
func (h *Hosts) checkHost(field string, u *url.URL) error {
	if h == nil {
		return nil
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		if len(h.allow.names) > 0 && !h.allow.hasAddr(mapped(ip)) {
			return denied(field, u.Hostname(), "it is not in -allow-hosts")
		}
		return h.checkAddr(field, ip)
	}
	name := plainName(u.Hostname())
	switch {
	case h.deny.hasName(name):
		return denied(field, name, "it is in -deny-hosts")
	case len(h.allow.names) > 0 && !h.allow.hasName(name):
		return denied(field, name, "it is not in -allow-hosts")
	}
	return nil
}

// Control is for [net.Dialer]: it gets each address before a connection is made
// to it, after its name was resolved. Its errors are *[Error] of
// [CodeHostDenied].
func (h *Hosts) Control(_, address string, _ syscall.RawConn) error {
	if h == nil {
		return nil
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return denied("", address, "it is not an IP address")
	}
	return h.checkAddr("", at.Addr())
}

func (h *Hosts) checkAddr(field string, ip netip.Addr) error {
	shown := ip.String()
	ip = mapped(ip)
	named := func(n netip.Prefix) bool { return n.Contains(ip) }
	switch {
	case h.deny.hasAddr(ip):
		return denied(field, shown, "it is in -deny-hosts")
	case slices.ContainsFunc(metadata(), named) && !slices.Contains(h.allow.nets, netip.PrefixFrom(ip, ip.BitLen())):
		return denied(field, shown, "it is the metadata service of a cloud")
	case h.special.SafeAddr(ip) != nil:
		return denied(field, shown, "it is link-local or reserved, and not in -allow-hosts")
	case !h.allow.empty() && len(h.allow.names) == 0 && !h.allow.hasAddr(ip):
		return denied(field, shown, "it is not in -allow-hosts")
	}
	return nil
}

// mapped returns the IPv4 address that an IPv6 address contains, even if a NAT64
// of RFC 6052 translates it.
func mapped(ip netip.Addr) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if b := ip.As16(); netip.MustParsePrefix("64:ff9b::/96").Contains(ip) {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return ip
}

func denied(field, host, why string) *Error {
	message := fmt.Sprintf("the address %s is denied: %s", host, why)
	if field != "" {
		message = fmt.Sprintf("%s leads to %.200q, which is denied: %s", field, host, why)
	}
	return &Error{Code: CodeHostDenied, Field: field, Message: message + "; the daemon's operator can change that"}
}

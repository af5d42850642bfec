package server

import "net"

const unixPrefix = "unix:"

// listenerURL returns l's address as clients write it.
func listenerURL(l net.Listener, tls bool) string {
	switch {
	case l.Addr().Network() == "unix":
		return unixPrefix + l.Addr().String()
	case tls:
		return "https://" + l.Addr().String()
	default:
		return "http://" + l.Addr().String()
	}
}

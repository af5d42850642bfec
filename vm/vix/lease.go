package vix

import (
	"bufio"
	"bytes"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Lease returns the address that a file of VMware's DHCP server gives the
// network card mac at the time now, or "" if it gives none.
//
// The file is in the form of the ISC server, times in UTC. It is a journal:
// the last entry for an address counts, and of the entries for a card the last
// that has not ended.
func Lease(file []byte, mac string, now time.Time) string {
	card, err := net.ParseMAC(mac)
	if err != nil {
		return ""
	}
	holders := make(map[string]bool) // addresses, and whether the card has them
	var last, address string
	var ours, over bool
	for lines := bufio.NewScanner(bytes.NewReader(file)); lines.Scan(); {
		fields := strings.Fields(strings.TrimSuffix(strings.TrimSpace(lines.Text()), ";"))
		switch {
		case len(fields) >= 2 && fields[0] == "lease":
			address, ours, over = fields[1], false, false
		case len(fields) >= 3 && fields[0] == "hardware" && fields[1] == "ethernet":
			m, err := net.ParseMAC(fields[2])
			ours = err == nil && bytes.Equal(m, card)
		case len(fields) >= 4 && fields[0] == "ends":
			end, err := time.Parse("2006/01/02 15:04:05", fields[2]+" "+fields[3])
			over = err == nil && !end.After(now)
		case len(fields) >= 1 && fields[0] == "abandoned":
			over = true
		case len(fields) == 1 && fields[0] == "}":
			holders[address] = ours && !over
			if ours && !over {
				last = address
			}
		}
	}
	if _, err := netip.ParseAddr(last); err != nil || !holders[last] {
		return ""
	}
	return last
}

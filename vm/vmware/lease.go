package vmware

import (
	"bufio"
	"bytes"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Lease returns the address that the NIC with this MAC address has at the time now according to a lease file of
// VMware's DHCP server, or "".
//
// The file has the format of the ISC server, with times in UTC. It is a journal: the last entry for an address counts,
// and of the entries for a NIC the last one that has not ended.
func Lease(file []byte, mac string, now time.Time) string {
	nic, err := net.ParseMAC(mac)
	if err != nil {
		return ""
	}
	leased := make(map[string]bool) // by address: whether the NIC has it
	var last, address string
	var ours, ended bool
	for lines := bufio.NewScanner(bytes.NewReader(file)); lines.Scan(); {
		fields := strings.Fields(strings.TrimSuffix(strings.TrimSpace(lines.Text()), ";"))
		switch {
		case len(fields) >= 2 && fields[0] == "lease":
			address, ours, ended = fields[1], false, false
		case len(fields) >= 3 && fields[0] == "hardware" && fields[1] == "ethernet":
			m, err := net.ParseMAC(fields[2])
			ours = err == nil && bytes.Equal(m, nic)
		case len(fields) >= 4 && fields[0] == "ends":
			end, err := time.Parse("2006/01/02 15:04:05", fields[2]+" "+fields[3])
			ended = err == nil && !end.After(now)
		case len(fields) >= 1 && fields[0] == "abandoned":
			ended = true
		case len(fields) == 1 && fields[0] == "}":
			leased[address] = ours && !ended
			if ours && !ended {
				last = address
			}
		}
	}
	if _, err := netip.ParseAddr(last); err != nil || !leased[last] {
		return ""
	}
	return last
}

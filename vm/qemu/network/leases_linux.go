package network

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// lease is one line of dnsmasq's lease file: when it ends, to whom it was
// given, which address, the guest's name for itself, its client identifier.
type lease struct {
	mac     string
	address netip.Addr
	line    string
	ended   bool
}

func (s *dhcpServers) leasePath(k Kind) string { return filepath.Join(s.dir, string(k), "leases") }

// leases reads the lease file of k; without a file there is no lease.
func (s *dhcpServers) leases(k Kind, now time.Time) ([]lease, error) {
	b, err := os.ReadFile(s.leasePath(k))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ls []lease
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 5 {
			continue // half a line, of a file that is being written
		}
		ends, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			continue
		}
		address, err := netip.ParseAddr(f[2])
		if err != nil {
			continue
		}
		ls = append(ls, lease{mac: f[1], address: address, line: line, ended: ends != 0 && ends <= now.Unix()})
	}
	return ls, nil
}

// leaseOf returns the address that mac holds in k now, or the zero Addr.
//
// dnsmasq truncates and rewrites its file at each change. If a file
// changed this moment the lack of a line therefore says nothing, and it is read
// again; five times cover a change each of as many guests that boot at once.
func (s *dhcpServers) leaseOf(k Kind, mac string) (netip.Addr, error) {
	const (
		tries = 5
		fresh = 20 * time.Millisecond
	)
	for range tries {
		now := time.Now()
		ls, err := s.leases(k, now)
		if err != nil {
			return netip.Addr{}, err
		}
		for _, l := range ls {
			if l.mac == mac && !l.ended {
				return l.address, nil
			}
		}
		info, err := os.Stat(s.leasePath(k))
		if err != nil || now.Sub(info.ModTime()) > fresh {
			return netip.Addr{}, nil
		}
		time.Sleep(fresh / tries)
	}
	return netip.Addr{}, nil
}

// removeLeases takes the lines of gone out of the lease file of k. It is for a
// dnsmasq that does not run: one that does keeps the truth in memory.
func (s *dhcpServers) removeLeases(k Kind, gone []guest) error {
	ls, err := s.leases(k, time.Now())
	if err != nil || len(ls) == 0 {
		return err
	}
	var kept strings.Builder
	for _, l := range ls {
		if !slices.ContainsFunc(gone, func(g guest) bool { return g.MAC == l.mac }) {
			kept.WriteString(l.line)
		}
	}
	return replace(s.leasePath(k), []byte(kept.String()), 0o600)
}

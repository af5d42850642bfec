package network

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// permitted reports whether this process may configure networks.
func permitted() bool { return !slices.Contains(lacking(), "CAP_NET_ADMIN") }

// lacking returns the capabilities that this process has not and needs: the
// first for itself, the others for dnsmasq, which takes them over.
func lacking() (names []string) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&hdr, &data[0])
	for _, c := range []struct {
		name string
		bit  int
	}{
		{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN},
		{"CAP_NET_RAW", unix.CAP_NET_RAW},
		{"CAP_NET_BIND_SERVICE", unix.CAP_NET_BIND_SERVICE},
	} {
		if err != nil || data[0].Effective&(1<<c.bit) == 0 {
			names = append(names, c.name)
		}
	}
	return names
}

// Available returns nil where guests can be attached to a network of kind k,
// and else an error that says why not and what to do. Cheap.
func (m *Manager) Available(k Kind) error {
	switch {
	case k != NAT && k != HostOnly && k != Bridged:
		return fmt.Errorf("network %q is not one of nat, hostonly and bridged", k)
	case k == Bridged && m.bridge == "":
		return errors.New("no bridge is configured; start the daemon with -bridge NAME")
	}
	if lacks := lacking(); len(lacks) > 0 {
		return fmt.Errorf("the daemon lacks %s; run it as root or give it what it lacks (with systemd: AmbientCapabilities=)", strings.Join(lacks, " and "))
	}
	if err := openTun(); err != nil {
		return fmt.Errorf("/dev/net/tun cannot be used (%w); load the kernel module tun and let the daemon open the device", err)
	}
	if err := probeRules(); err != nil {
		return fmt.Errorf("the kernel refuses nftables (%w); load the kernel module nf_tables", err)
	}
	if k == Bridged {
		l, err := netlink.LinkByName(m.bridge)
		if err != nil || l.Type() != "bridge" {
			return fmt.Errorf("%s is not a bridge of this host; make it, or name another with -bridge", m.bridge)
		}
		return nil
	}
	_, err := serverPath()
	return err
}

func openTun() error {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// serverPath returns where dnsmasq is. The PATH of a daemon that is not root's
// often lacks the folders where system programs are.
func serverPath() (string, error) {
	for _, name := range []string{"dnsmasq", "/usr/sbin/dnsmasq", "/usr/local/sbin/dnsmasq"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("dnsmasq is not installed; install the Debian package dnsmasq-base (Fedora, Arch: dnsmasq)")
}

package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	serverDeadline = 10 * time.Second // dnsmasq is ready within some 20 ms
	leaseTime      = time.Hour        // guests renew after half of it; the address stays the same
	logLimit       = 1 << 20          // bytes of dnsmasq.log at which it is truncated

	// domain is that of guests' names. ICANN reserves .internal for private networks, some of which use it.
	domain = "vm.internal"

	// noDNS is the tag of cards whose guests must not ask this network's DNS server.
	noDNS = "nodns"
)

// dhcpServers are the dnsmasq processes of one Manager, one for each managed
// network, with their files.
type dhcpServers struct {
	names
	dir string // [Config].Dir
	log *slog.Logger
}

func (s *dhcpServers) configPath(k Kind) string {
	return filepath.Join(s.dir, string(k), "dnsmasq.conf")
}

// configArg is the argument by which our dnsmasq is known among all processes.
func (s *dhcpServers) configArg(k Kind) string { return "--conf-file=" + s.configPath(k) }

// hostsDir holds what dnsmasq reads again on SIGHUP. All other files it opens
// as root, but this one as the user that it has become by then, to whom our
// own folder is closed.
func (s *dhcpServers) hostsDir() string {
	if os.Geteuid() == 0 {
		return "/run/" + s.tapPrefix()
	}
	return filepath.Join(s.dir, "hosts")
}

func (s *dhcpServers) hostsPath(k Kind) string { return filepath.Join(s.hostsDir(), string(k)) }

// namesPath is a file in the form of /etc/hosts with the names of k's guests.
func (s *dhcpServers) namesPath(k Kind) string { return s.hostsPath(k) + ".names" }

// ensure makes sure that a dnsmasq with the right settings serves the
// bridge of k, which has the given index, and knows st's guests.
func (s *dhcpServers) ensure(ctx context.Context, st *state, k Kind, index int) error {
	changed, err := s.writeHosts(st, k)
	if err != nil {
		return err
	}
	ps, err := findProcesses(s.configArg(k))
	if err != nil {
		return err
	}
	defer closeAll(ps)
	want := s.config(st, k, index)
	have, err := os.ReadFile(s.configPath(k))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(ps) > 0 && bytes.Equal(have, want) {
		if err := s.trimLog(k); err != nil || !changed {
			return err
		}
		return signal(ps, unix.SIGHUP)
	}
	if err := s.stop(ctx, k); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.configPath(k)), 0o700); err != nil {
		return err
	}
	// The file changes only while no dnsmasq runs: one that runs has read it.
	if err := replace(s.configPath(k), want, 0o600); err != nil {
		return err
	}
	return s.start(ctx, k)
}

// config returns the settings for k. The bridge's index is among them, as
// sockets stay bound to the index: a bridge that was created again needs a new dnsmasq.
func (s *dhcpServers) config(st *state, k Kind, index int) []byte {
	dir := filepath.Dir(s.configPath(k))
	gw := st.Gateways[k]
	mask := netMask(gw.Bits())
	lines := []string{
		fmt.Sprintf("# The %s network of %s, bridge %d. Written anew when it must change.", k, s.name, index),
		"interface=" + s.bridgeName(k),
		"except-interface=lo",
		"bind-interfaces",
		"pid-file=" + filepath.Join(dir, "dnsmasq.pid"),
		"log-facility=" + filepath.Join(dir, "dnsmasq.log"),
		"dhcp-leasefile=" + s.leasePath(k),
		"dhcp-hostsfile=" + s.hostsPath(k),
		fmt.Sprintf("dhcp-range=%s,static,%s,%d", gw.Masked().Addr(), mask, int(leaseTime.Seconds())),
		"dhcp-ignore-clid",  // clones of one image often share it; the MAC is a guest's own
		"dhcp-ignore-names", // no guest puts a name into the others' DNS
		"dhcp-authoritative",
		"no-ping", // an address belongs to one MAC: nobody else can have it
		"no-hosts",
		"bogus-priv",
		"addn-hosts=" + s.namesPath(k), // read again on SIGHUP
		"domain=" + domain,
		"expand-hosts",           // a name is known with the domain and without it
		"local=/" + domain + "/", // and asked of no other server
	}
	if k == HostOnly {
		// Forwarded queries, and a router, would be a way out.
		lines = append(lines, "no-resolv", "dhcp-option=option:router", "dhcp-option=tag:"+noDNS+",option:dns-server")
	}
	if u, g := serverUser(); u != "" {
		lines = append(lines, "user="+u, "group="+g)
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

// serverUser returns the user and group that a dnsmasq started by root becomes;
// one that is not keeps the user it has.
func serverUser() (name, group string) {
	if os.Geteuid() != 0 {
		return "", ""
	}
	for _, n := range []string{"dnsmasq", "nobody"} {
		u, err := user.Lookup(n)
		if err != nil {
			continue
		}
		if g, err := user.LookupGroupId(u.Gid); err == nil {
			return n, g.Name
		}
	}
	return "root", "root" // a system without nobody
}

// writeHosts writes which address and which name each guest of k has, and
// reports whether that is news. A guest that has a card on nat too is not told
// of the DNS server of hostonly, which would answer nothing that is outside.
func (s *dhcpServers) writeHosts(st *state, k Kind) (changed bool, err error) {
	var addresses, names bytes.Buffer
	for _, g := range st.attached(k) {
		tag, end := "", ""
		if k == HostOnly && st.has(NAT, g.ID) {
			tag = "set:" + noDNS + ","
		}
		if g.Endless {
			end = ",infinite"
		}
		fmt.Fprintf(&addresses, "%s,%s%s%s\n", g.MAC, tag, g.Address, end)
		if g.Name != "" {
			fmt.Fprintf(&names, "%s %s\n", g.Address, g.Name)
		}
	}
	// dnsmasq, which has a user of its own, reads it, whatever the daemon's umask is.
	if err := errors.Join(os.MkdirAll(s.hostsDir(), 0o755), os.Chmod(s.hostsDir(), 0o755)); err != nil {
		return false, err
	}
	for path, text := range map[string][]byte{s.hostsPath(k): addresses.Bytes(), s.namesPath(k): names.Bytes()} {
		have, err := os.ReadFile(path)
		if err == nil && bytes.Equal(have, text) {
			continue
		}
		if err := replace(path, text, 0o644); err != nil {
			return false, err
		}
		changed = true
	}
	return changed, nil
}

// start starts dnsmasq and returns when it serves. One that was killed a
// moment ago may still hold its sockets, so it is tried for a while.
func (s *dhcpServers) start(ctx context.Context, k Kind) error {
	const (
		patience = time.Second
		again    = 50 * time.Millisecond
		badNet   = 2 // dnsmasq's exit code for an address in use, among others
	)
	ctx, cancel := context.WithTimeout(ctx, serverDeadline)
	defer cancel()
	begun := time.Now()
	for {
		err := s.run(ctx, k)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != badNet || time.Since(begun) > patience {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(again):
		}
	}
}

// run runs dnsmasq until it has all its sockets; what serves then is its
// child, which outlives the daemon.
func (s *dhcpServers) run(ctx context.Context, k Kind) error {
	path, err := serverPath()
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, s.configArg(k))
	cmd.Dir = "/"
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_NET_BIND_SERVICE}
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

// stop ends the dnsmasq of k if one runs.
func (s *dhcpServers) stop(ctx context.Context, k Kind) error {
	return stopProcesses(ctx, s.configArg(k))
}

// trimLog truncates the log of k if it is long. dnsmasq appends to it.
func (s *dhcpServers) trimLog(k Kind) error {
	path := filepath.Join(s.dir, string(k), "dnsmasq.log")
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || info.Size() < logLimit {
		return err
	}
	return os.Truncate(path, 0)
}

// netMask returns an IPv4 mask in dotted form.
func netMask(bits int) string {
	m := net.CIDRMask(bits, 32)
	return net.IP(m).String()
}

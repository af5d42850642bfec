package network_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"osx-builder/vm/qemu/network"
	"osx-builder/vm/vmtest"
)

// box is a guest as its network sees it: a namespace with a card that is wired
// to the tap, as QEMU copies it.
type box struct {
	space
	id  string
	mac net.HardwareAddr
}

// plug copies a new box to the tap.
func plug(t *testing.T, tap, id string, mac net.HardwareAddr) *box {
	t.Helper()
	b := &box{space: newSpace(t), id: id, mac: mac}
	near, err := openTap(tap)
	if err != nil {
		t.Fatal(err)
	}
	var far *os.File
	if err := b.Do(func() (err error) { far, err = openTap("eth0"); return err }); err != nil {
		t.Fatal(err)
	}
	var copies sync.WaitGroup
	copyFrom := func(to, from *os.File) { copies.Go(func() { copyFrames(to, from) }) }
	copyFrom(near, far)
	copyFrom(far, near)
	t.Cleanup(func() {
		near.Close()
		far.Close()
		copies.Wait()
	})
	b.run(t, "ip", "link", "set", "eth0", "address", mac.String())
	b.run(t, "ip", "link", "set", "eth0", "up")
	return b
}

// openTap opens the tap called name, and creates it if there is none.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("opening tap %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// copyFrames carries frames until a side is closed. What a card that is not up
// yet does not take is lost, as on a real wire.
func copyFrames(to io.Writer, from io.Reader) {
	frame := make([]byte, 1<<16)
	for {
		n, err := from.Read(frame)
		if errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EBADFD) {
			return
		}
		if err != nil {
			continue
		}
		if _, err := to.Write(frame[:n]); errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

// dhcp asks for a lease until it gets one, and takes it. It returns the zero
// Addr when nobody answers.
func (b *box) dhcp(t *testing.T) netip.Addr { return b.ask(t, patience) }

// ask is dhcp for a time of seconds, at least one, with more of udhcpc's
// options.
func (b *box) ask(t *testing.T, wait time.Duration, more ...string) netip.Addr {
	t.Helper()
	answer := b.udhcpc(t, wait, more...)
	if answer == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(strings.Fields(answer)[0])
}

// offer asks for a lease and returns everything that the server says.
func (b *box) offer(t *testing.T) string {
	t.Helper()
	return b.udhcpc(t, patience)
}

// udhcpc returns the address that the server gives and what else it says, or "" if nobody answers.
func (b *box) udhcpc(t *testing.T, wait time.Duration, more ...string) string {
	t.Helper()
	script := filepath.Join(t.TempDir(), "script")
	const text = `#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr flush dev $interface
ip addr add $ip/$mask dev $interface
[ -z "$router" ] || ip route replace default via $router
echo "bound $ip router=$router dns=$dns domain=$domain"
`
	vmtest.WriteProgram(t, script, text)
	tries := strconv.Itoa(max(1, int(wait.Seconds())))
	args := []string{"udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", tries, "-T", "1", "-s", script}
	out, err := b.try("busybox", append(args, more...)...)
	_, after, ok := strings.Cut(out, "bound ")
	if err != nil || !ok {
		return ""
	}
	return after
}

// get connects from the box and returns whom the server there takes it for.
func (b space) get(address string) (string, error) { return b.getWithin(address, patience) }

// getWithin is get with a limit to how long it takes to connect.
func (b space) getWithin(address string, wait time.Duration) (string, error) {
	var body []byte
	err := b.Do(func() error {
		d := net.Dialer{Timeout: wait}
		c, err := d.Dial("tcp4", address)
		if err != nil {
			return err
		}
		defer c.Close()
		body, err = io.ReadAll(c)
		return err
	})
	return string(body), err
}

// reaches reports whether a packet to the address comes back: a refusal by a
// closed port is an answer too.
func (b space) reaches(to netip.Addr) bool { return b.knock(to, patience) }

// cutOff reports whether none comes back for a moment.
func (b space) cutOff(from netip.Addr) bool { return !b.knock(from, moment) }

func (b space) knock(at netip.Addr, wait time.Duration) bool {
	err := b.Do(func() error {
		d := net.Dialer{Timeout: wait}
		c, err := d.Dial("tcp4", netip.AddrPortFrom(at, 9).String())
		if err == nil {
			c.Close()
		}
		return err
	})
	return err == nil || errors.Is(err, unix.ECONNREFUSED)
}

// lab is a Manager under test with the folder it lives in.
type lab struct {
	*network.Manager
	conf network.Config
}

// newLab opens a Manager on the test's host and cleans up after it. Of a test
// that failed it shows what the Manager and its servers did.
func newLab(t *testing.T, edit func(*network.Config)) *lab {
	t.Helper()
	data := t.TempDir()
	// The folder of a real daemon is closed to all but root.
	if err := os.Chmod(data, 0o700); err != nil {
		t.Fatal(err)
	}
	l := &lab{conf: network.Config{
		Dir: filepath.Join(data, "net"), Name: data, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
	if edit != nil {
		edit(&l.conf)
	}
	l.open(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the host forwards: %s\nrules:\n%s", host(t, "cat", forwardingPath), host(t, "nft", "list", "ruleset"))
			for _, k := range []network.Kind{network.NAT, network.HostOnly} {
				t.Logf("dnsmasq's log on %s:\n%s", k, l.serverLog(k))
			}
		}
		if err := l.Clean(context.Background()); err != nil {
			t.Errorf("cleaning: %v", err)
		}
	})
	return l
}

// open opens the Manager again, as a daemon that was restarted does.
func (l *lab) open(t *testing.T) {
	t.Helper()
	m, err := network.Open(l.conf)
	if err != nil {
		t.Fatal(err)
	}
	l.Manager = m
}

// id returns the id of the nth machine, mac its card's address.
func id(n int) string { return fmt.Sprintf("3c1f6b1e-0000-4000-8000-%012d", n) }

func mac(n int) net.HardwareAddr { return net.HardwareAddr{0x52, 0x54, 0, 0, 0, byte(n)} }

// name returns the name of the nth machine.
func name(n int) string { return fmt.Sprintf("vm-%d", n) }

// attach attaches the nth machine and copies it up.
func (l *lab) attach(t *testing.T, k network.Kind, n int) *box {
	t.Helper()
	tap, err := l.Attach(t.Context(), k, id(n), mac(n), name(n))
	if err != nil {
		t.Fatal(err)
	}
	return plug(t, tap, id(n), mac(n))
}

// boot attaches the nth machine and waits for its lease.
func (l *lab) boot(t *testing.T, k network.Kind, n int) (*box, netip.Addr) {
	t.Helper()
	b := l.attach(t, k, n)
	a := b.dhcp(t)
	if !a.IsValid() {
		t.Fatalf("machine %d got no lease on %s", n, k)
	}
	return b, a
}

func (l *lab) serverLog(k network.Kind) string {
	b, err := os.ReadFile(filepath.Join(l.conf.Dir, string(k), "dnsmasq.log"))
	return fmt.Sprint(string(b), err)
}

func (l *lab) address(t *testing.T, n int) netip.Addr {
	t.Helper()
	a, err := l.Address(mac(n))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

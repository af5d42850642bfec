package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"osx-builder/vm/vmtest/harness"
)

// The network of guests that are started by hand. A guest that boots has its own address on the first bridge. Guests
// that continue the saved one all have its address, each on a bridge of its own.
const (
	manualGateway = "10.213.0.1"
	manualSubnet  = "10.213.0."
	manualMAC     = "52:54:00:d5:00:%02x"
	firstManual   = 100 // in manualSubnet, the address of the first guest
)

// manualGuest is a guest that a shell script starts with the command line of a machine of the daemon. It is saved
// once, and then continued again and again.
type manualGuest struct {
	b       *testing.B
	service service
	dir     string
	ram     string   // the file with its memory
	boot    []string // the command line of a machine that boots
	resume  []string // that of one that continues a saved guest
}

// newManualGuest returns a guest of the image of the daemon with the data folder data.
func newManualGuest(b *testing.B, s service, memory int64, data string, boot, resume []string) *manualGuest {
	b.Helper()
	shm, err := os.MkdirTemp("/dev/shm", "osxb-bench-")
	harness.Must(b, err)
	b.Cleanup(func() { harness.Must(b, os.RemoveAll(shm)) })
	g := &manualGuest{b: b, service: s, dir: harness.DataDir(b), ram: filepath.Join(shm, "ram"), boot: boot, resume: resume}
	harness.Must(b, os.WriteFile(g.ram, nil, 0o600))
	harness.Must(b, os.Truncate(g.ram, memory))
	vmdk, err := filepath.Glob(filepath.Join(data, "images", "gold", "*", "*", "*.vmdk"))
	harness.Must(b, err)
	g.run("qemu-img convert -f vmdk -O qcow2 " + vmdk[0] + " base.qcow2 && qemu-img create -q -f qcow2 -F qcow2 -b base.qcow2 saved.qcow2")
	for i := range mostAtOnce {
		g.addBridge(bridgeOf(i))
	}
	args := []string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--pid-file=", "--no-ping", "--dhcp-authoritative",
		"--dhcp-leasefile=" + filepath.Join(g.dir, "leases"), "--interface=" + bridgeOf(0), "--bind-interfaces",
		fmt.Sprintf("--dhcp-range=%s%d,static,infinite", manualSubnet, firstManual),
	}
	for i := range mostAtOnce {
		args = append(args, "--dhcp-host="+macOf(i)+","+addressOf(i)+",infinite")
	}
	dhcp := exec.Command("dnsmasq", args...)
	harness.Must(b, dhcp.Start())
	b.Cleanup(func() {
		_ = dhcp.Process.Kill()
		_ = dhcp.Wait()
	})
	return g
}

func bridgeOf(i int) string  { return fmt.Sprint("manual", i) }
func tapOf(i int) string     { return fmt.Sprint("manual-tap", i) }
func macOf(i int) string     { return fmt.Sprintf(manualMAC, i) }
func addressOf(i int) string { return manualSubnet + strconv.Itoa(firstManual+i) }

// addBridge adds a bridge. A guest that continues knows the bridge by its MAC address, so all have the same.
func (g *manualGuest) addBridge(name string) {
	g.b.Helper()
	g.run("ip link add " + name + " address 52:54:00:d5:01:00 type bridge && ip addr add " + manualGateway + "/24 dev " + name +
		" && ip link set " + name + " up")
	g.b.Cleanup(func() { g.run("ip link del " + name) })
}

func (g *manualGuest) run(script string) {
	g.b.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = g.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		g.b.Fatalf("%s: %v: %s", script, err, out)
	}
}

var (
	tapByDescriptor = regexp.MustCompile(`^tap,id=(\w+),fd=\d+`)
	memoryFile      = regexp.MustCompile(`mem-path=[^,]*,share=\w+`)
	cardMAC         = regexp.MustCompile(`mac=[0-9a-f:]+`)
)

// byHand returns a command line in which QEMU opens by its name what the daemon hands it open, without that which
// makes QEMU wait. QEMU's folder is one below that of the manual guest.
func (g *manualGuest) byHand(args []string, tap, mac, disk, share string) (changed []string) {
	for i := 0; i < len(args); i++ {
		a, next := args[i], ""
		if i+1 < len(args) {
			next = args[i+1]
		}
		switch {
		case a == "-S":
			continue
		case a == "-add-fd", a == "-incoming", strings.HasPrefix(next, "socket,id=events,"), strings.HasPrefix(next, "chardev=events,"):
			i++
			continue
		}
		if strings.Contains(a, `"node-name":"disk0"`) {
			a = fmt.Sprintf(`{"node-name":"disk0","driver":"qcow2","discard":"unmap","file":{"driver":"file","filename":%q,"discard":"unmap"}}`, disk)
		} else {
			a = byName(a, "")
		}
		a = tapByDescriptor.ReplaceAllString(a, "tap,id=$1,ifname="+tap+",script=no,downscript=no")
		a = memoryFile.ReplaceAllString(a, "mem-path="+g.ram+",share="+share)
		changed = append(changed, cardMAC.ReplaceAllString(a, "mac="+mac))
	}
	return changed
}

// boots returns a starter of guests that boot.
func (g *manualGuest) boots() starter {
	return starter{func(int) {}, func(i, n int) (startTimes, func()) {
		began := time.Now()
		q := g.launch(i, 0, "qemu-img create -q -f qcow2 -F qcow2 -b ../base.qcow2 disk0.qcow2", g.byHand(g.boot, tapOf(i), macOf(i), "disk0.qcow2", "off"))
		return g.times(began, 0, addressOf(i), n), q.end
	}}
}

// save boots the guest and saves its memory and the state of its devices.
func (g *manualGuest) save() {
	g.b.Helper()
	q := g.launch(0, 0, "true", g.byHand(g.resume, tapOf(0), macOf(0), "../saved.qcow2", "on"))
	defer q.end()
	g.times(time.Now(), 0, addressOf(0), 1)
	time.Sleep(3 * time.Second) // in which the guest settles
	q.ask("stop", nil, nil)
	q.prepare(filepath.Join(g.dir, "state"), os.O_WRONLY|os.O_CREATE)
	q.ask("migrate", map[string]any{"uri": "fd:state"}, nil)
	for m := (struct{ Status string }{}); m.Status != "completed"; time.Sleep(time.Millisecond) {
		if q.ask("query-migrate", nil, &m); m.Status == "failed" {
			g.b.Fatal("QEMU does not save the guest")
		}
	}
	q.ask("quit", nil, nil)
	<-q.ended
	g.run("chmod 444 saved.qcow2 && qemu-img create -q -f qcow2 -F qcow2 -b $PWD/saved.qcow2 empty.qcow2")
}

// loads returns a starter of guests that are loaded and continue.
func (g *manualGuest) loads() starter {
	return starter{func(int) {}, func(i, n int) (startTimes, func()) {
		began := time.Now()
		q := g.load(i)
		q.ask("cont", nil, nil)
		return g.times(began, i, addressOf(0), n), q.end
	}}
}

// continues returns a starter of guests that were loaded before and only continue.
func (g *manualGuest) continues() starter {
	var waiting []*manualQEMU
	return starter{
		func(n int) {
			waiting = nil
			for i := range n {
				waiting = append(waiting, g.load(i))
			}
		},
		func(i, n int) (startTimes, func()) {
			began := time.Now()
			waiting[i].ask("cont", nil, nil)
			return g.times(began, i, addressOf(0), n), waiting[i].end
		},
	}
}

// load starts a QEMU with a copy of an empty overlay, and loads the saved guest, which waits.
func (g *manualGuest) load(i int) *manualQEMU {
	g.b.Helper()
	args := g.byHand(g.resume, tapOf(i), macOf(0), "disk0.qcow2", "off")
	q := g.launch(i, i, "cp ../empty.qcow2 disk0.qcow2", append(args, "-incoming", "defer", "-S"))
	q.prepare(filepath.Join(g.dir, "state"), os.O_RDONLY)
	q.ask("migrate-incoming", map[string]any{"uri": "fd:state"}, nil)
	for m := (struct{ Status string }{}); m.Status != "completed"; time.Sleep(time.Millisecond) {
		if q.ask("query-migrate", nil, &m); m.Status == "failed" {
			g.b.Fatal("QEMU does not load the guest")
		}
	}
	return q
}

// times waits until a guest that runs answers, one of n. Its bridge is that with the index.
func (g *manualGuest) times(began time.Time, bridge int, ip string, n int) (t startTimes) {
	g.b.Helper()
	t.on = time.Since(began)
	t.tcp, t.page = g.service.await(g.b, began, bridgeOf(bridge), ip, n)
	return t
}

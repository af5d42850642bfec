//go:build vix && cgo && !windows

package vix_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmx"
)

func TestDriver(t *testing.T) {
	b := newBench(t)
	vmtest.TestDriver(t, vmtest.Harness{
		Open: func(t *testing.T) vm.Driver {
			t.Helper()
			return b.open()
		},
		Gold: b.gold, GuestOS: "debian11-64", Limit: 20 * time.Second,
	})
}

// What the clone's .vmx says, before VMware starts it.
func TestCloneSettings(t *testing.T) {
	b := newBench(t)
	d := b.open()
	m := b.machine()
	m.Annotation = "from \"https://x/?a=b\"\nfirmware = \"bios\" | |22"
	must(t, d.Clone(t.Context(), m, b.gold))

	f, err := vmx.Parse([]byte(read(t, filepath.Join(m.Dir, "*.vmx"))))
	must(t, err)
	got := make(map[string]string)
	for _, key := range f.Keys() {
		got[key], _ = f.Get(key)
	}
	want := map[string]string{
		".encoding": "UTF-8", "config.version": "8", "virtualhw.version": "12", "guestos": "debian11-64",
		"displayname": m.ID, "memsize": "256", "numvcpus": "2", "annotation": m.Annotation,
		"scsi0.present": "TRUE", "scsi0:0.present": "TRUE", "scsi0:0.filename": got["scsi0:0.filename"],
		"ethernet0.present": "TRUE", "ethernet0.connectiontype": "nat", "ethernet0.addresstype": "generated",
		"ethernet0.startconnected": "TRUE", "ethernet0.virtualdev": "e1000",
		"floppy0.present": "FALSE", "firmware": "efi", "nvram": "gold.nvram",
		"msg.autoanswer": "TRUE", "uuid.action": "create",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the clone's .vmx (-want +got):\n%s", diff)
	}
	if !strings.Contains(got["scsi0:0.filename"], "clone") {
		t.Errorf("the clone's disk is %q, want one of its own", got["scsi0:0.filename"])
	}
	must(t, d.Destroy(t.Context(), m))
}

// An image's base shares its disk, is made once, and goes with the image once
// the last clone is gone.
func TestBase(t *testing.T) {
	b := newBench(t)
	d := b.open()
	before := tree(t, filepath.Dir(b.gold))
	one, two := b.running(d), b.running(d)

	bases, err := filepath.Glob(filepath.Join(b.options.Dir, "*", "vmware", "machine", "disk.vmdk"))
	must(t, err)
	if len(bases) != 1 {
		t.Fatalf("got the bases %q, want one", bases)
	}
	if b, g := stat(t, bases[0]), stat(t, filepath.Join(filepath.Dir(b.gold), "disk.vmdk")); !os.SameFile(b, g) {
		t.Log("the file system shares blocks; else the base's disk would be the image's file")
	}
	if strings.Contains(read(t, filepath.Join(b.options.Dir, "*", "vmware", "machine", "*.log")), "noise") {
		t.Error("the image's log is in the base")
	}
	must(t, d.Destroy(t.Context(), one))
	if diff := cmp.Diff(before, tree(t, filepath.Dir(b.gold))); diff != "" {
		t.Errorf("the image changed (-before +after):\n%s", diff)
	}

	must(t, os.Chmod(filepath.Dir(b.gold), 0o755))
	must(t, os.RemoveAll(filepath.Dir(b.gold)))
	if st, err := d.Inspect(t.Context(), two); err != nil || st.Power != vm.PoweredOn {
		t.Errorf("a clone of an image that is gone: got %+v, %v, want powered-on", st, err)
	}
	must(t, b.open().Close())
	if len(tree(t, b.options.Dir)) == 1 {
		t.Error("the base was removed under a clone")
	}
	must(t, d.Destroy(t.Context(), two))
	if left := tree(t, b.options.Dir); len(left) != 1 {
		t.Errorf("the base of an image that is gone is left: %v", left)
	}
}

func stat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info
}

// VMware may want to write to the disks of the machine that it snapshots.
func TestBaseIsCopiedWhereSharingFails(t *testing.T) {
	b := newBench(t)
	d := b.open()
	b.set("readonly", "")
	m := b.running(d)
	must(t, d.Destroy(t.Context(), m))
	if s := read(t, filepath.Join(b.options.Dir, "*", "vmware", "base.json")); !strings.Contains(s, `"Shared":false`) {
		t.Errorf("got %s, want a base that shares nothing", s)
	}
	must(t, d.Destroy(t.Context(), b.running(d)))
}

// A suspended image is cloned as one that is off, and one without a network
// card gets a card.
func TestCloneOfUnusualImages(t *testing.T) {
	b := newBench(t)
	d := b.open()
	m := b.machine()
	must(t, d.Clone(t.Context(), m, b.image("bare", "guestOS = \"other\"\ncheckpoint.vmState = \"x.vmss\"\n")))
	text := read(t, filepath.Join(m.Dir, "*.vmx"))
	if strings.Contains(text, "checkpoint") || !strings.Contains(text, `ethernet0.connectionType = "nat"`) {
		t.Errorf("got\n%s\nwant no checkpoint and a card", text)
	}
	must(t, d.Destroy(t.Context(), m))
}

// Lines of real .vmx files that govix's parsers refuse, drop or panic at.
func TestOddLines(t *testing.T) {
	b := newBench(t)
	d := b.open()
	gold := b.image("odd", goldVMX+strings.Join([]string{
		"a line without the sign", `guestinfo.userdata = "Zm9vYg=="`, `a = "b=c=d"`, "# a comment", "  # another",
		"tools.syncTime = yes", "ethernet0.wakeOnPcktRcv = \"maybe\"", "MEMSIZE = \"2048.0\"", "x=y", `empty = ""`,
		`long = "` + strings.Repeat("x", 70_000) + `"`, "\ttab.key = \"v\" # why", "memsize = 1024", "\r", "bare = word",
	}, "\n")+"\n")
	m := b.machine()
	must(t, d.Clone(t.Context(), m, gold))
	must(t, d.Start(t.Context(), m))
	// VMware writes values as it likes once the machine runs.
	if text := read(t, filepath.Join(m.Dir, "*.vmx")); !strings.Contains(text, `guestinfo.userdata = "Zm9vYg=="`) {
		t.Errorf("the value with equals signs is lost:\n%s", text)
	}
	for _, d := range []vm.Driver{d, b.open()} {
		if st, err := d.Inspect(t.Context(), m); err != nil || st.Power != vm.PoweredOn || st.Memory != 256 {
			t.Errorf("Inspect: got %+v, %v, want powered-on with 256 MiB", st, err)
		}
	}
	must(t, d.Destroy(t.Context(), m))
	b.gone(d, m)
}

func TestStatus(t *testing.T) {
	b := newBench(t)
	lease := filepath.Join(b.dir, "leases")
	b.options.Leases = map[vm.NetworkType]string{vm.NAT: lease}
	b.set("tools.ms", -1)
	b.set("ip.ms", -1)
	d := b.open()
	m := b.running(d)
	inspect := func() vm.Status {
		t.Helper()
		st, err := d.Inspect(t.Context(), m)
		must(t, err)
		return st
	}

	st := inspect()
	if st.Up || st.IP != "" || st.Tools != vm.ToolsUnknown || st.GuestOS != "debian11-64" || st.CPUs != 2 || st.Memory != 256 {
		t.Errorf("a guest that says nothing: got %+v", st)
	}
	must(t, os.WriteFile(lease, []byte("lease 172.16.1.9 {\n ends 3 2100/01/01 00:00:00;\n hardware ethernet "+st.MAC+";\n}\n"), 0o644))
	if st = inspect(); st.IP != "172.16.1.9" || !st.Up {
		t.Errorf("a guest with a lease: got %+v, want the address 172.16.1.9", st)
	}
	b.set("tools.ms", 0)
	b.set("ip.ms", 0)
	b.set("ip", "192.168.99.1")
	until(t, "tools running", func() bool { return inspect().Tools == vm.ToolsRunning })
	if st = inspect(); st.IP != "172.16.1.9" {
		t.Errorf("VIX tells the host's address: got %q, want that of the lease", st.IP)
	}
	b.set("ip", "192.168.99.7")
	if st = inspect(); st.IP != "192.168.99.7" {
		t.Errorf("got %q, want VIX's address", st.IP)
	}
	if n := b.stats()["endless"]; n != 0 {
		t.Errorf("got %d waits for tools without a limit, want none", n)
	}
	must(t, d.Destroy(t.Context(), m))
}

func TestPowersOfTheDriver(t *testing.T) {
	b := newBench(t)
	d := b.open()
	if l := d.Limits(); l.CPUs < 2 || l.Memory < 64 {
		t.Errorf("Limits: got %+v", l)
	}
	for _, n := range []vm.NetworkType{vm.Bridged, vm.NAT, vm.HostOnly} {
		must(t, d.Network(n))
	}
	must(t, d.Ready(t.Context()))
	before := b.stats()["vm"]
	m := b.machine()
	must(t, d.Clone(t.Context(), m, b.gold))
	if _, err := d.Inspect(t.Context(), m); err != nil || b.stats()["vm"] == before {
		t.Errorf("Inspect: got %v and %d machines open, want one more than %d", err, b.stats()["vm"], before)
	}
	if got := d.Describe(t.Context())["library"]; got != double {
		t.Errorf("Describe: got library %q, want %q", got, double)
	}
	must(t, d.Close())
	if n := b.stats()["vm"]; n != before {
		t.Errorf("after Close %d machines are open, want %d", n, before)
	}
	must(t, d.Close())
	if err := d.Ready(t.Context()); err == nil {
		t.Error("Ready after Close: got no error")
	}
	if err := d.Clone(t.Context(), b.machine(), b.gold); err == nil {
		t.Error("Clone after Close: got no error")
	}
}

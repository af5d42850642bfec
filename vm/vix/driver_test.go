//go:build vix && cgo && !windows

package vix_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"osx-builder/vm"
	"osx-builder/vm/cloudinit"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmware"
	"osx-builder/vm/vmx"
)

func TestDriver(t *testing.T) {
	h := newHarness(t)
	h.set("ip.ms", 0) // when the tools run, the guest has its address
	vmtest.TestDriver(t, vmtest.Harness{
		Open: func(t *testing.T) vm.Driver {
			t.Helper()
			return h.open()
		},
		Gold: h.gold, GuestOS: "debian11-64", Limit: 3 * time.Minute,
	})
}

// The .vmx of a clone, before VMware starts it.
func TestCloneSettings(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	m := h.machine()
	m.Guest = &vm.GuestConfig{Hostname: "web", UserData: "#!/bin/sh\n"}
	m.Annotation = "from \"https://x/?a=b\"\nfirmware = \"bios\" | |22"
	must(t, d.Clone(t.Context(), m, h.gold))

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
		"remotedisplay.vnc.enabled": "FALSE", "sharedfolder.maxnum": "0", "hgfs.maprootshare": "FALSE",
		"hgfs.linkrootshare": "FALSE", "isolation.tools.hgfs.disable": "TRUE", "isolation.tools.copy.disable": "TRUE",
		"isolation.tools.paste.disable": "TRUE", "isolation.tools.dnd.disable": "TRUE",
		"isolation.tools.setguioptions.enable": "FALSE", "vmci0.unrestricted": "FALSE",
	}
	for _, s := range cloudinit.GuestInfo(m) {
		want[s.Key] = s.Value
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the clone's .vmx (-want +got):\n%s", diff)
	}
	if !strings.Contains(got["scsi0:0.filename"], "clone") {
		t.Errorf("the clone's disk is %q, want one of its own", got["scsi0:0.filename"])
	}
	must(t, d.Destroy(t.Context(), m))
}

// The first card is on the requested network, each other one on that of the image. An image without a card gets one.
func TestCardsOfClone(t *testing.T) {
	for name, test := range map[string]struct{ more, remove, want string }{
		"several": {
			"ethernet1.present = \"TRUE\"\nethernet1.connectionType = \"hostonly\"\nethernet1.address = \"00:50:56:00:00:02\"\n" +
				"ethernet3.present = \"TRUE\"\nethernet3.connectionType = \"custom\"\nethernet3.vnet = \"VMnet7\"\n", "-",
			"e1000 nat, e1000 hostonly, e1000 hostonly",
		},
		"none": {"", "ethernet0.", "vmxnet3 nat"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			text := ""
			for line := range strings.Lines(read(t, h.gold) + test.more) {
				if !strings.HasPrefix(line, test.remove) {
					text += line
				}
			}
			d, m := h.open(), h.machine()
			must(t, d.Clone(t.Context(), m, h.image("cards", text)))
			st, err := d.Inspect(t.Context(), m)
			must(t, err)
			var cards []string
			for _, n := range st.NICs {
				cards = append(cards, n.Model+" "+string(n.NetworkType))
			}
			if got := strings.Join(cards, ", "); got != test.want {
				t.Errorf("got cards %q, want %q", got, test.want)
			}
			warned := slices.ContainsFunc(st.Warnings, func(w vm.Warning) bool {
				return w.Code == vm.WarningNetworkReplaced && strings.Contains(w.Message, "ethernet3") && strings.Contains(w.Message, "custom")
			})
			if warned != (name == "several") {
				t.Errorf("got warnings %+v", st.Warnings)
			}
			must(t, d.Destroy(t.Context(), m))
		})
	}
}

// An image's base shares the image's disk, is created once, and is removed after the image and the last clone.
func TestBase(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	before := tree(t, filepath.Dir(h.gold))
	one, two := h.running(d), h.running(d)

	bases, err := filepath.Glob(filepath.Join(h.options.Dir, "*", "vmware", "machine", "disk.vmdk"))
	must(t, err)
	if len(bases) != 1 {
		t.Fatalf("got the bases %q, want one", bases)
	}
	if b, g := stat(t, bases[0]), stat(t, filepath.Join(filepath.Dir(h.gold), "disk.vmdk")); !os.SameFile(b, g) {
		t.Log("the file system supports reflinks, otherwise the base's disk would be a hard link")
	}
	if strings.Contains(read(t, filepath.Join(h.options.Dir, "*", "vmware", "machine", "*.log")), "a log line") {
		t.Error("the image's log is in the base")
	}
	must(t, d.Destroy(t.Context(), one))
	if diff := cmp.Diff(before, tree(t, filepath.Dir(h.gold))); diff != "" {
		t.Errorf("the image changed (-before +after):\n%s", diff)
	}

	must(t, os.Chmod(filepath.Dir(h.gold), 0o755))
	must(t, os.RemoveAll(filepath.Dir(h.gold)))
	if st, err := d.Inspect(t.Context(), two); err != nil || st.Power != vm.PoweredOn {
		t.Errorf("a clone of an image that is gone: got %+v, %v, want powered-on", st, err)
	}
	must(t, h.open().Close())
	if len(tree(t, h.options.Dir)) == 1 {
		t.Error("the base was removed under a clone")
	}
	must(t, d.Destroy(t.Context(), two))
	if left := tree(t, h.options.Dir); len(left) != 1 {
		t.Errorf("the base of an image that is gone is left: %v", left)
	}
}

func stat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info
}

// If VMware must write to the disks of the machine that it snapshots, they are copied.
func TestBaseWithCopiedDisks(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	h.set("readonly", "")
	m := h.running(d)
	must(t, d.Destroy(t.Context(), m))
	if s := read(t, filepath.Join(h.options.Dir, "*", "vmware", "base.json")); !strings.Contains(s, `"Shared":false`) {
		t.Errorf("got %s, want a base that shares nothing", s)
	}
	must(t, d.Destroy(t.Context(), h.running(d)))
}

// A suspended image is cloned like one that is off, and an image without a NIC gets one.
func TestCloneUnusualImages(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	m := h.machine()
	must(t, d.Clone(t.Context(), m, h.image("bare", "guestOS = \"other\"\ncheckpoint.vmState = \"x.vmss\"\n")))
	text := read(t, filepath.Join(m.Dir, "*.vmx"))
	if strings.Contains(text, "checkpoint") || !strings.Contains(text, `ethernet0.connectionType = "nat"`) {
		t.Errorf("got\n%s\nwant no checkpoint and a NIC", text)
	}
	must(t, d.Destroy(t.Context(), m))
}

// What an image opens between its guest and the host is closed in the clone, and its independent disks can have
// snapshots.
func TestCloneIsolation(t *testing.T) {
	for name, c := range map[string]struct {
		line string            // of the image
		want map[string]string // in the clone; "" is absent
	}{
		"VNC server": {
			"RemoteDisplay.vnc.enabled = \"TRUE\"\nRemoteDisplay.vnc.port = \"5901\"\nRemoteDisplay.vnc.key = \"x\"",
			map[string]string{"remotedisplay.vnc.enabled": "FALSE", "remotedisplay.vnc.port": "", "remotedisplay.vnc.key": ""},
		},
		"shared folder": {
			"sharedFolder0.present = \"TRUE\"\nsharedFolder0.enabled = \"TRUE\"\nsharedFolder0.hostPath = \"/\"\nsharedFolder.maxNum = \"1\"",
			map[string]string{"sharedfolder0.present": "FALSE", "sharedfolder.maxnum": "0", "isolation.tools.hgfs.disable": "TRUE"},
		},
		"root share": {"hgfs.mapRootShare = \"TRUE\"\nhgfs.linkRootShare = \"TRUE\"", map[string]string{"hgfs.maprootshare": "FALSE", "hgfs.linkrootshare": "FALSE"}},
		"clipboard":  {"isolation.tools.copy.disable = \"FALSE\"\nisolation.tools.paste.disable = \"FALSE\"", map[string]string{"isolation.tools.copy.disable": "TRUE", "isolation.tools.paste.disable": "TRUE"}},
		"host-guest channel": {
			"vmci0.unrestricted = \"TRUE\"", map[string]string{"vmci0.unrestricted": "FALSE"},
		},
		"independent disk":     {"scsi0:0.mode = \"independent-persistent\"", map[string]string{"scsi0:0.mode": ""}},
		"independent disk (2)": {"scsi0:0.mode = \"Independent-nonpersistent\"", map[string]string{"scsi0:0.mode": ""}},
		"other disk mode":      {"scsi0:0.mode = \"persistent\"", map[string]string{"scsi0:0.mode": "persistent"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			d := h.open()
			m := h.machine()
			must(t, d.Clone(t.Context(), m, h.image("image", goldVMX+c.line+"\n")))
			f, err := vmx.Parse([]byte(read(t, filepath.Join(m.Dir, "*.vmx"))))
			must(t, err)
			for key, want := range c.want {
				if got, _ := f.Get(key); got != want {
					t.Errorf("%s: got %q, want %q", key, got, want)
				}
			}
			must(t, d.Destroy(t.Context(), m))
		})
	}
}

// Lines of real .vmx files that govix's parsers refuse, ignore or panic at.
func TestOddLines(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	gold := h.image("odd", goldVMX+strings.Join([]string{
		"a line without the sign", `guestinfo.userdata = "Zm9vYg=="`, `a = "b=c=d"`, "# a comment", "  # another",
		"tools.syncTime = yes", "ethernet0.wakeOnPcktRcv = \"maybe\"", "MEMSIZE = \"2048.0\"", "x=y", `empty = ""`,
		`long = "` + strings.Repeat("x", 70_000) + `"`, "\ttab.key = \"v\" # why", "memsize = 1024", "\r", "bare = word",
	}, "\n")+"\n")
	m := h.machine()
	must(t, d.Clone(t.Context(), m, gold))
	must(t, d.Start(t.Context(), m))
	// VMware writes values as it likes once the machine runs.
	if text := read(t, filepath.Join(m.Dir, "*.vmx")); !strings.Contains(text, `guestinfo.userdata = "Zm9vYg=="`) {
		t.Errorf("the value with equals signs is lost:\n%s", text)
	}
	for _, d := range []vm.Driver{d, h.open()} {
		if st, err := d.Inspect(t.Context(), m); err != nil || st.Power != vm.PoweredOn || st.Memory != 256 {
			t.Errorf("Inspect: got %+v, %v, want powered-on with 256 MiB", st, err)
		}
	}
	must(t, d.Destroy(t.Context(), m))
	h.checkGone(d, m)
}

func TestStatus(t *testing.T) {
	h := newHarness(t)
	lease := filepath.Join(h.dir, "leases")
	h.options.Leases = vmware.Leases{vm.NAT: lease}
	h.set("tools.ms", -1)
	h.set("ip.ms", -1)
	d := h.open()
	m := h.running(d)
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
	h.set("tools.ms", 0)
	h.set("ip.ms", 0)
	h.set("ip", "192.168.99.1")
	waitUntil(t, "tools running", func() bool { return inspect().Tools == vm.ToolsRunning })
	if st = inspect(); st.IP != "172.16.1.9" {
		t.Errorf("VIX reports the host's address: got %q, want the lease's", st.IP)
	}
	for _, linkLocal := range []string{"169.254.7.7", "fe80::1"} {
		h.set("ip", linkLocal)
		if st = inspect(); st.IP != "172.16.1.9" {
			t.Errorf("VIX reports %s: got %q, want the lease's", linkLocal, st.IP)
		}
	}
	h.set("ip", "192.168.99.7")
	if st = inspect(); st.IP != "192.168.99.7" {
		t.Errorf("got %q, want VIX's address", st.IP)
	}
	if n := h.stats()["endless"]; n != 0 {
		t.Errorf("got %d waits for tools without a limit, want none", n)
	}
	must(t, d.Destroy(t.Context(), m))
}

func TestDriverState(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	if l := d.Limits(); l.CPUs < 2 || l.Memory < 64 {
		t.Errorf("Limits: got %+v", l)
	}
	for _, n := range []vm.NetworkType{vm.Bridged, vm.NAT, vm.HostOnly} {
		must(t, d.Network(n))
	}
	must(t, d.Ready(t.Context()))
	before := h.stats()["vm"]
	m := h.machine()
	must(t, d.Clone(t.Context(), m, h.gold))
	if _, err := d.Inspect(t.Context(), m); err != nil || h.stats()["vm"] == before {
		t.Errorf("Inspect: got %v and %d machines open, want one more than %d", err, h.stats()["vm"], before)
	}
	if got := d.Describe(t.Context())["library"]; got != double {
		t.Errorf("Describe: got library %q, want %q", got, double)
	}
	must(t, d.Close())
	if n := h.stats()["vm"]; n != before {
		t.Errorf("after Close %d machines are open, want %d", n, before)
	}
	must(t, d.Close())
	if err := d.Ready(t.Context()); err == nil {
		t.Error("Ready after Close: got no error")
	}
	if err := d.Clone(t.Context(), h.machine(), h.gold); err == nil {
		t.Error("Clone after Close: got no error")
	}
}

package qemu_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// command returns the arguments with which the machine would be started, as
// pairs of an option and its value.
func (r *testDriver) command(lines ...string) (options []string) {
	r.t.Helper()
	m := r.machine()
	r.clone(m, r.image(idleGuest, lines...))
	argv, err := r.Command(r.t.Context(), m)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, arg := range argv[1:] {
		if strings.HasPrefix(arg, "-") {
			options = append(options, arg)
		} else {
			options[len(options)-1] += " " + strings.ReplaceAll(arg, m.ID, "ID")
		}
	}
	return options
}

// starting returns the options that begin so.
func starting(options []string, with string) []string {
	return slices.DeleteFunc(slices.Clone(options), func(o string) bool { return !strings.HasPrefix(o, with) })
}

func TestCommandDevices(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		lines []string
		want  []string
	}{
		"pvscsi": {scsi0("pvscsi"), []string{
			"-device pvscsi,id=scsi0",
			"-device scsi-hd,bus=scsi0.0,scsi-id=0,drive=disk0,bootindex=0",
		}},
		"lsisas1068": {scsi0("lsisas1068"), []string{
			"-device mptsas1068,id=scsi0",
			"-device scsi-hd,bus=scsi0.0,scsi-id=0,wwn=0x5000c29000000001,drive=disk0,bootindex=0",
		}},
		"lsilogic": {scsi0("lsilogic"), []string{
			"-device lsi53c895a,id=scsi0",
			"-device scsi-hd,bus=scsi0.0,scsi-id=0,drive=disk0,bootindex=0",
		}},
		"sata": {on("sata2:4"), []string{
			"-device ich9-ahci,id=sata2",
			"-device ide-hd,bus=sata2.4,drive=disk0,bootindex=0",
		}},
		"the board's sata": {on("sata0:3"), []string{"-device ide-hd,bus=ide.3,drive=disk0,bootindex=0"}},
		"ide": {on("ide1:0"), []string{
			"-device piix4-ide,id=pata",
			"-device ide-hd,bus=pata.1,unit=0,drive=disk0,bootindex=0",
		}},
		"nvme": {on("nvme1:2"), []string{
			"-device nvme,serial=nvme1,id=nvme1",
			"-device nvme-ns,bus=nvme1,nsid=3,drive=disk0,bootindex=0",
		}},
		"two on one controller": {append(scsi0("pvscsi"), `scsi0:3.present = "TRUE"`, `scsi0:3.fileName = "disk.vmdk"`), []string{
			"-device pvscsi,id=scsi0",
			"-device scsi-hd,bus=scsi0.0,scsi-id=0,drive=disk0,bootindex=0",
			"-device scsi-hd,bus=scsi0.0,scsi-id=3,drive=disk1,bootindex=1",
		}},
		"vlance": {append(on("ide0:0"), `ethernet0.present = "TRUE"`, `ethernet0.virtualDev = "vlance"`), []string{
			"-device piix4-ide,id=pata",
			"-device ide-hd,bus=pata.0,unit=0,drive=disk0,bootindex=0",
			"-device pcie-root-port,id=port0,slot=32,chassis=1",
			"-device pcnet,netdev=net0,mac=MAC,bus=port0,romfile=",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newTestDriver(t)
			var got []string
			for _, option := range starting(r.command(test.lines...), "-device ") {
				if before, after, has := strings.Cut(option, "mac="); has {
					option = before + "mac=MAC" + after[strings.Index(after, ","):]
				}
				if strings.Contains(option, "slot=160") || strings.Contains(option, "slot=192") || strings.Contains(option, "bus=port0") && strings.Contains(option, "vmxnet3") {
					continue // the card that a machine without one gets
				}
				common := []string{"virtio-rng", "isa-serial", "virtio-serial", "virtserialport", "vmware-svga", "vmgenid"}
				if !slices.ContainsFunc(common, func(device string) bool { return strings.Contains(option, device) }) {
					got = append(got, option)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("devices, -want +got:\n%s", diff)
			}
		})
	}
}

// The device of the agent's port has no more ports than that one and the console's. By default it has 31, and QEMU sets
// up two queues for each whenever a machine starts or continues.
func TestCommandAgentPort(t *testing.T) {
	t.Parallel()
	want := []string{"-device virtio-serial-pci,max_ports=2", "-device virtserialport,chardev=qga,name=org.qemu.guest_agent.0"}
	got := newTestDriver(t).command(plain...)
	got = slices.DeleteFunc(got, func(o string) bool { return !strings.Contains(o, "-serial-") && !strings.Contains(o, "serialport") })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the agent's port, -want +got:\n%s", diff)
	}
}

// Every layer of a disk says what it is: nothing that an untrusted file says
// of its format or of the files under it is believed.
func TestCommandSpellsOutDisks(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	disks := starting(r.command(plain...), "-blockdev ")
	if len(disks) != 1 {
		t.Fatalf("got disks %q, want one", disks)
	}
	type file struct{ Driver, Filename string }
	var got struct {
		Driver  string
		File    file
		Backing *struct {
			Driver   string
			ReadOnly bool `json:"read-only"`
			File     file
			Backing  *json.RawMessage
		}
	}
	text := []byte(strings.TrimPrefix(disks[0], "-blockdev "))
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	below := got.Backing
	if got.Driver != "qcow2" || got.File != (file{"file", "/dev/fdset/0"}) || below == nil {
		t.Fatalf("got disk %s, want a qcow2 file over another", text)
	}
	if below.Driver != "vmdk" || !below.ReadOnly || below.File != (file{"file", "/dev/fdset/1"}) {
		t.Errorf("got %+v under the overlay, want the image's VMDK, read-only", below)
	}
	if !strings.Contains(string(text), `"backing":null`) {
		t.Errorf("got disk %s, want that its last layer says that it is the last", text)
	}
}

// Windows expects local time in the clock, whatever VMware calls it.
func TestCommandOfWindows(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	for guestOS, want := range map[string]string{
		"windows2019srv-64": "-rtc base=localtime", "longhorn-64": "-rtc base=localtime", "winNetStandard": "-rtc base=localtime",
		"ubuntu-64": "-rtc base=utc", "darkwin": "-rtc base=utc",
	} {
		m := r.machine()
		gold := r.image(idleGuest, plain...)
		r.run("sed", "-i.old", "s/debian12-64/"+guestOS+"/", gold)
		r.run("rm", gold+".old")
		r.clone(m, gold)
		argv, err := r.Command(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(strings.Join(argv, " "), want) {
			t.Errorf("got %q for %s, want %q in it", argv, guestOS, want)
		}
	}
}

// What an honest image has left of its maker's host is switched off: the
// machine boots, its warnings name each, and nothing of it is given to QEMU or
// made.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	outside := t.TempDir()
	leftovers := map[string][]string{ // by what the warning says
		"ide1:0: drive of type cdrom-image": {`ide1:0.present = "TRUE"`, `ide1:0.deviceType = "cdrom-image"`, `ide1:0.fileName = "` + outside + `/tools.iso"`},
		"sata0:1: drive of type cdrom-raw":  {`sata0.present = "TRUE"`, `sata0:1.present = "TRUE"`, `sata0:1.deviceType = "cdrom-raw"`, `sata0:1.fileName = "auto detect"`},
		"floppy0":                           {`floppy0.present = "TRUE"`, `floppy0.fileName = "/dev/fd0"`},
		"serial1: serial port":              {`serial0.present = "TRUE"`, `serial0.fileType = "file"`, `serial0.fileName = "` + outside + `/serial.txt"`, `serial1.present = "TRUE"`, `serial1.fileName = "` + outside + `/serial1.txt"`},
		"parallel0":                         {`parallel0.present = "TRUE"`, `parallel0.fileName = "/dev/lp0"`},
		"sound":                             {`sound.present = "TRUE"`, `sound.fileName = "-1"`, `sound.autoDetect = "TRUE"`},
		"sharedfolder0":                     {`sharedFolder0.present = "TRUE"`, `sharedFolder0.hostPath = "` + outside + `"`},
	}
	lines := plain
	for _, l := range leftovers {
		lines = append(slices.Clip(lines), l...)
	}
	m := r.machine()
	r.clone(m, r.image(idleGuest, lines...))
	argv, err := r.Command(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	for _, arg := range argv {
		for _, word := range []string{outside, "/dev/fd0", "/dev/lp0", "cdrom", "cd,", "floppy", "fdc", "parallel", "audio", "fsdev", "virtfs"} {
			if strings.Contains(arg, word) {
				t.Errorf("QEMU is given %q", arg)
			}
		}
	}
	r.start(m)
	until(t, harness.Timeout, "a booted guest", func() bool { return strings.Contains(serial(m), "OK") })
	if made, err := os.ReadDir(outside); err != nil || len(made) > 0 {
		t.Errorf("got %v outside, %v, want nothing", made, err)
	}
	warnings := r.inspect(m).Warnings
	for what := range leftovers {
		if !slices.ContainsFunc(warnings, func(w vm.Warning) bool {
			return w.Code == vm.WarningDeviceLeftOut && strings.Contains(w.Message, what)
		}) {
			t.Errorf("no warning about %s: %+v", what, warnings)
		}
	}
	if len(warnings) != len(leftovers) {
		t.Errorf("got %+v, want one warning for each of %d devices, and none for the console", warnings, len(leftovers))
	}
}

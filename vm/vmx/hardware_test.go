package vmx_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"osx-builder/vm/vmx"

	"github.com/google/go-cmp/cmp"
)

func TestHardware(t *testing.T) {
	tests := map[string]vmx.Hardware{
		"fusion.vmx": {
			GuestOS: "darwin20-64", DisplayName: `macOS "Sonoma" – ci`, Version: 16, Firmware: "efi", CPUs: 4, Memory: 8192,
			Controllers: []vmx.Controller{{Bus: "nvme"}, {Bus: "sata"}},
			Disks:       []vmx.Disk{{Bus: "nvme", File: "Virtual Disk.vmdk", Key: "nvme0:0.fileName"}},
			NICs:        []vmx.NIC{{Model: "vmxnet3", MAC: "00:0c:29:aa:bb:cc", Connection: "nat", Slot: 192}},
			NVRAM:       "macOS.nvram",
			HostAccess: []string{
				`sata0:1: drive of type cdrom-image ("/Applications/Install.iso")`,
				`usb_xhci:7: USB device of type video`,
				`usb.vbluetooth.startconnected: Bluetooth of the host`,
				`sound: sound card ("-1")`,
				`sharedfolder0: shared folder ("/Users/jane/Documents")`,
			},
		},
		"workstation.vmx": {
			GuestOS: "debian12-64", DisplayName: "Debian 12.x", Version: 19, Firmware: "bios", CPUs: 2, Memory: 2048,
			Controllers: []vmx.Controller{{Bus: "scsi", Adapter: "pvscsi"}},
			Disks:       []vmx.Disk{{Bus: "scsi", Adapter: "pvscsi", File: "debian.vmdk", Key: "scsi0:0.fileName"}},
			NICs: []vmx.NIC{
				{Model: "e1000", MAC: "00:50:56:01:02:03", Connection: "bridged", Slot: 32},
				{Index: 1, Model: "e1000", Connection: "bridged", Slot: 33},
			},
			HostAccess: []string{
				`ide1:0: drive of type cdrom-raw ("auto detect")`,
				`floppy0: floppy drive ("A:")`,
				`serial0: serial port`,
				`serial1: serial port ("C:\\Users\\jane\\out.txt")`,
				`parallel0: parallel port ("LPT1")`,
				`log.filename: file or folder of the host ("C:\\Users\\jane\\vm.log")`,
				`remotedisplay.vnc.enabled: VNC server on a port of the host`,
				`printers.enabled: printers of the host`,
			},
		},
		"packer.vmx": {
			GuestOS: "ubuntu", DisplayName: "packer-box", Version: 9, Firmware: "bios", CPUs: 1, Memory: 512,
			Controllers: []vmx.Controller{{Bus: "scsi", Adapter: "buslogic"}, {Bus: "ide"}},
			Disks: []vmx.Disk{
				{Bus: "scsi", Unit: 1, Adapter: "buslogic", File: "boot.vmdk", Key: "scsi0:1.fileName", Mode: "independent-nonpersistent"},
				{Bus: "ide", File: "data.vmdk", Key: "ide0:0.fileName"},
				{Bus: "scsi", Adapter: "buslogic", File: "disk.vmdk", Key: "scsi0:0.fileName"},
			},
			NICs:  []vmx.NIC{{Model: "vlance", Connection: "nat", Slot: 32}},
			NVRAM: "packer-box.nvram",
		},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseFile(t, name).Hardware()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDeviceTypes(t *testing.T) {
	for kind, disk := range map[string]bool{
		"": true, "disk": true, "scsi-hardDisk": true, "ata-hardDisk": true, "plainDisk": true, "rawDisk": true,
		"cdrom-image": false, "cdrom-raw": false, "atapi-cdrom": false, "scsi-passthru": false, "no such thing": false,
	} {
		f := parse(t, fmt.Sprintf("ide0:0.present = TRUE\nide0:0.fileName = \"x\"\nide0:0.deviceType = %q\n", kind))
		h, err := f.Hardware()
		if err != nil {
			t.Fatal(err)
		}
		if got := len(h.Disks) == 1; got != disk || len(h.Disks)+len(h.HostAccess) != 1 {
			t.Errorf("deviceType %q: got disks %v, host access %q, want a disk: %v", kind, h.Disks, h.HostAccess, disk)
		}
	}
}

func TestHardwareRefusesInvalidSlots(t *testing.T) {
	many := &strings.Builder{}
	for i := range 61 {
		fmt.Fprintf(many, "nvme%d:%d.present = TRUE\n", i/60, i%60)
	}
	for name, text := range map[string]string{
		"controller":       "scsi4:0.present = TRUE\n",
		"unit":             "ide0:2.present = TRUE\n",
		"leading zero":     "scsi00:0.present = TRUE\n",
		"61 hard disks":    many.String(),
		"far beyond int32": "sata0:999.present = TRUE\n",
	} {
		_, err := parse(t, text).Hardware()
		if refusal := (*vmx.CheckError)(nil); !errors.As(err, &refusal) || refusal.Hostile || refusal.Key == "" {
			t.Errorf("%s: got %v, want a CheckError that names a key", name, err)
		}
	}
}

func TestDisableHostAccess(t *testing.T) {
	for _, name := range []string{"fusion.vmx", "workstation.vmx", "packer.vmx"} {
		t.Run(name, func(t *testing.T) {
			f := parseFile(t, name)
			before, err := f.Hardware()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before.HostAccess, f.DisableHostAccess()); diff != "" {
				t.Errorf("DisableHostAccess (-HostAccess +got):\n%s", diff)
			}
			after, err := parse(t, string(f.Bytes())).Hardware()
			if err != nil {
				t.Fatal(err)
			}
			if len(after.HostAccess) > 0 {
				t.Errorf("still accessible: %q", after.HostAccess)
			}
			before.HostAccess, after.HostAccess = nil, nil
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("the rest of the machine changed (-before +after):\n%s", diff)
			}
			if value, _ := f.Get("floppy0.present"); value != "FALSE" {
				t.Errorf("floppy0.present: got %q, want FALSE", value)
			}
			if again := f.DisableHostAccess(); len(again) > 0 {
				t.Errorf("a second DisableHostAccess: %q", again)
			}
		})
	}
}

func TestDisableHostAccessOfEachDevice(t *testing.T) {
	f := parse(t, strings.Join([]string{
		`floppy0.present = "FALSE"`,
		`SATA0:1.present = "TRUE"`, `sata0:1.deviceType = "cdrom-image"`, `sata0:1.startConnected = "TRUE"`,
		`usb.autoConnect.device0 = "name:x vid:1"`,
		`debugStub.listen.guest64 = "1"`,
		`snapshot.directory = "../../elsewhere"`, `suspend.directory = "snapshots"`,
		`bios440.filename = "/etc/shadow"`,
		`guestinfo.ssh.path = "/home"`,
	}, "\n")+"\n")
	if got := f.DisableHostAccess(); len(got) != 5 {
		t.Errorf("DisableHostAccess: got %q, want 5 lines", got)
	}
	want := strings.Join([]string{
		`floppy0.present = "FALSE"`,
		`SATA0:1.present = "FALSE"`, `sata0:1.deviceType = "cdrom-image"`, `sata0:1.startConnected = "FALSE"`,
		`debugStub.listen.guest64 = "FALSE"`,
		`suspend.directory = "snapshots"`,
		`guestinfo.ssh.path = "/home"`,
	}, "\n") + "\n"
	if diff := cmp.Diff(want, string(f.Bytes())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

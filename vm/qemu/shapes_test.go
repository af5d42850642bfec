package qemu

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmx"
)

// shape is a .vmx as a tool writes it, and the machine that it must become: the board, firmware, disks and NICs, and the
// codes of the warnings.
type shape struct{ text, want string }

// twentyOne are disks on two pvscsi controllers, as a database server has them.
func twentyOne() string {
	text := "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\nscsi1.present = \"TRUE\"\nscsi1.virtualDev = \"lsisas1068\"\n"
	for n := range 21 {
		at := fmt.Sprintf("scsi%d:%d", n/15, n%15+n%15/7)
		text += at + ".present = \"TRUE\"\n" + at + ".fileName = \"" + fmt.Sprintf("disk-%d.vmdk", n) + "\"\n"
	}
	return text
}

const (
	lsiDisk    = "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"lsilogic\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\n"
	sasDisk    = "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"lsisas1068\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\n"
	pvscsiDisk = "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\n"
	sataDisk   = "sata0.present = \"TRUE\"\nsata0:0.present = \"TRUE\"\nsata0:0.fileName = \"a.vmdk\"\n"
	nvmeDisk   = "nvme0.present = \"TRUE\"\nnvme0:0.present = \"TRUE\"\nnvme0:0.fileName = \"a.vmdk\"\n"
	ideDisk    = "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"a.vmdk\"\n"
	cdROM      = "ide1:0.present = \"TRUE\"\nide1:0.deviceType = \"cdrom-raw\"\nide1:0.fileName = \"auto detect\"\n"
)

func shapes() map[string]shape {
	return map[string]shape{
		"Workstation, easy install of Ubuntu": {
			"virtualHW.version = \"19\"\nguestOS = \"ubuntu-64\"\n" + lsiDisk + "scsi0.pciSlotNumber = \"16\"\n" + cdROM +
				"floppy0.present = \"TRUE\"\nfloppy0.fileName = \"autoinst.flp\"\nethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"e1000\"\n" +
				"ethernet0.connectionType = \"nat\"\nethernet0.pciSlotNumber = \"33\"\nusb.present = \"TRUE\"\nusb.pciSlotNumber = \"32\"\nsound.present = \"TRUE\"\nsound.pciSlotNumber = \"34\"\n",
			"q35 bios; lsilogic scsi0:0; e1000=e1000 33; device-left-out device-left-out device-left-out",
		},
		"Workstation, Debian with two cards": {
			"virtualHW.version = \"20\"\nguestOS = \"debian12-64\"\n" + pvscsiDisk + "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet3\"\n" +
				"ethernet0.pciSlotNumber = \"192\"\nethernet1.present = \"TRUE\"\nethernet1.virtualDev = \"vmxnet3\"\nethernet1.connectionType = \"hostonly\"\nethernet1.pciSlotNumber = \"224\"\n",
			"q35 bios; pvscsi scsi0:0; vmxnet3=vmxnet3 192, vmxnet3=vmxnet3 224 hostonly; ",
		},
		"Workstation, Windows 10": {
			"virtualHW.version = \"18\"\nguestOS = \"windows9-64\"\nfirmware = \"efi\"\n" + nvmeDisk + "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"e1000e\"\nethernet0.pciSlotNumber = \"192\"\n",
			"q35 efi local; nvme nvme0:0; e1000e=e1000e 192; ",
		},
		"Workstation, Windows 11 with TPM": {
			"virtualHW.version = \"20\"\nguestOS = \"windows11-64\"\nfirmware = \"efi\"\nvtpm.present = \"TRUE\"\nvmx.encryptionType = \"partial\"\n" +
				"encryption.keySafe = \"vmware:key/list/(pair/(x))\"\nencryption.data = \"AAAA\"\n" + nvmeDisk + "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"e1000e\"\n",
			"q35 efi tpm local; nvme nvme0:0; e1000e=e1000e 160; ",
		},
		"Fusion, Linux bundle on Intel": {
			"virtualHW.version = \"18\"\nguestOS = \"fedora-64\"\nfirmware = \"efi\"\n" + sataDisk + "sata0:1.present = \"TRUE\"\nsata0:1.deviceType = \"cdrom-image\"\n" +
				"sata0:1.fileName = \"/Users/jane/fedora.iso\"\nethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"e1000\"\nusb.present = \"TRUE\"\n",
			"q35 efi; sata sata0:0; e1000=e1000 33; device-left-out",
		},
		"Fusion, Debian on Apple silicon": {
			"virtualHW.version = \"20\"\nguestOS = \"arm-debian12-64\"\nfirmware = \"efi\"\n" + nvmeDisk + "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"e1000e\"\nethernet0.pciSlotNumber = \"160\"\n",
			"virt efi; nvme nvme0:0; e1000e=e1000e 160; ",
		},
		"Packer, vmware-iso": {
			".encoding = \"UTF-8\"\nbios.bootorder = \"hdd,CDROM\"\nvirtualhw.version = \"9\"\nguestos = \"debian10-64\"\n" + strings.ToLower(lsiDisk) +
				"scsi0.pcislotnumber = \"16\"\nethernet0.present = \"TRUE\"\nethernet0.virtualdev = \"e1000\"\nethernet0.connectiontype = \"nat\"\nethernet0.pcislotnumber = \"32\"\n",
			"q35 bios; lsilogic scsi0:0; e1000=e1000 32; ",
		},
		"Packer, template without a card": {
			"virtualHW.version = \"14\"\nguestOS = \"centos7-64\"\n" + pvscsiDisk, "q35 bios; pvscsi scsi0:0; vmxnet3=vmxnet3 192; ",
		},
		"Vagrant box, no card": {
			"virtualhw.version = \"10\"\nguestos = \"ubuntu-64\"\n" + lsiDisk + "ethernet0.present = \"FALSE\"\n", "q35 bios; lsilogic scsi0:0; vmxnet3=vmxnet3 160; ",
		},
		"Vagrant box, old 32-bit guest": {
			"virtualhw.version = \"7\"\nguestos = \"ubuntu\"\n" + "scsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.filename = \"a.vmdk\"\nethernet0.present = \"TRUE\"\nethernet0.connectiontype = \"nat\"\n",
			"q35 bios; buslogic scsi0:0; vlance=pcnet 32; device-replaced",
		},
		"ESXi, exported Linux": {
			"virtualHW.version = \"15\"\nguestOS = \"rhel8-64\"\n" + pvscsiDisk + "scsi0.pciSlotNumber = \"160\"\nethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet3\"\n" +
				"ethernet0.networkName = \"VM Network\"\nethernet0.addressType = \"vpx\"\nethernet0.generatedAddress = \"00:50:56:aa:bb:cc\"\nethernet0.pciSlotNumber = \"192\"\n" +
				"ethernet1.present = \"TRUE\"\nethernet1.virtualDev = \"vmxnet3\"\nethernet1.networkName = \"DMZ\"\nethernet1.pciSlotNumber = \"1184\"\nsched.cpu.shares = \"normal\"\n",
			"q35 bios; pvscsi scsi0:0; vmxnet3=vmxnet3 192, vmxnet3=vmxnet3 161 hostonly; network-replaced",
		},
		"ESXi, EFI with Secure Boot on pvscsi": {
			"virtualHW.version = \"17\"\nguestOS = \"sles15-64\"\nfirmware = \"efi\"\n" + pvscsiDisk + "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet3\"\n",
			"q35 efi; sata sata0:0; vmxnet3=vmxnet3 192; device-replaced",
		},
		"ESXi, Windows Server on lsisas": {
			"virtualHW.version = \"13\"\nguestOS = \"windows9srv-64\"\n" + sasDisk + "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"e1000e\"\nethernet0.pciSlotNumber = \"192\"\n",
			"q35 bios local; lsisas1068 scsi0:0; e1000e=e1000e 192; ",
		},
		"Windows Server 2008 on lsilogic": {
			"virtualHW.version = \"7\"\nguestOS = \"longhorn-64\"\n" + lsiDisk + cdROM + "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"e1000\"\n",
			"q35 bios local; ide ide0:0; e1000=e1000 32; device-left-out device-replaced",
		},
		"Windows XP": {
			"virtualHW.version = \"4\"\nguestOS = \"winXPPro\"\n" + ideDisk + "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vlance\"\n",
			"pc bios local; ide ide0:0; vlance=pcnet; ",
		},
		"old Linux with VMware's own card": {
			"virtualHW.version = \"8\"\nguestOS = \"rhel5-64\"\n" + lsiDisk + "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet\"\nethernet1.present = \"TRUE\"\nethernet1.virtualDev = \"flexible\"\nethernet1.connectionType = \"custom\"\nethernet1.vnet = \"VMnet3\"\n",
			"q35 bios; lsilogic scsi0:0; vmxnet=e1000 32, flexible=pcnet 33 hostonly; device-replaced device-replaced network-replaced",
		},
		"virt-v2v": {
			"virtualHW.version = \"11\"\nguestOS = \"other26xLinux-64\"\n" + sataDisk + "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet3\"\nethernet0.connectionType = \"bridged\"\nethernet0.addressType = \"generated\"\n",
			"q35 bios; sata sata0:0; vmxnet3=vmxnet3 160; ",
		},
		"suspended": {
			"virtualHW.version = \"16\"\nguestOS = \"debian10-64\"\ncheckpoint.vmState = \"m-1234.vmss\"\n" + lsiDisk + "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"e1000\"\nethernet0.pciSlotNumber = \"32\"\n",
			"q35 bios; lsilogic scsi0:0; e1000=e1000 32; ",
		},
		"with snapshots": {
			"virtualHW.version = \"16\"\nguestOS = \"ubuntu-64\"\n" + strings.ReplaceAll(nvmeDisk, "a.vmdk", "a-000002.vmdk") + "snapshot0.fileName = \"m-Snapshot1.vmsn\"\nethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet3\"\n",
			"q35 bios; nvme nvme0:0; vmxnet3=vmxnet3 160; ",
		},
		"21 disks on two controllers": {
			"virtualHW.version = \"19\"\nguestOS = \"oracleLinux8-64\"\n" + twentyOne() + "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet3\"\n",
			"q35 bios; pvscsi scsi0:0, pvscsi scsi0:1, pvscsi scsi0:2, pvscsi scsi0:3, pvscsi scsi0:4, pvscsi scsi0:5, pvscsi scsi0:6, pvscsi scsi0:8, pvscsi scsi0:9, " +
				"pvscsi scsi0:10, pvscsi scsi0:11, pvscsi scsi0:12, pvscsi scsi0:13, pvscsi scsi0:14, pvscsi scsi0:16, lsisas1068 scsi1:0, lsisas1068 scsi1:1, lsisas1068 scsi1:2, " +
				"lsisas1068 scsi1:3, lsisas1068 scsi1:4, lsisas1068 scsi1:5; vmxnet3=vmxnet3 224; ",
		},
	}
}

// The .vmx files of twenty kinds of tools and guests become the machines that their guests expect.
func TestShapes(t *testing.T) {
	user := &userBackend{why: "of the test"}
	backends := networkBackends{vm.NAT: user, vm.HostOnly: user, vm.Bridged: user}
	all := shapes()
	if len(all) < 20 {
		t.Errorf("got %d shapes, want at least 20", len(all))
	}
	for name, s := range all {
		t.Run(name, func(t *testing.T) {
			f, err := vmx.Parse([]byte("config.version = \"8\"\n" + s.text))
			if err != nil {
				t.Fatal(err)
			}
			from, err := f.Hardware()
			if err != nil {
				t.Fatal(err)
			}
			h, warnings, err := mapHardware(from, backends)
			if err != nil {
				t.Fatal(err)
			}
			if got := describeMachine(h, warnings); got != s.want {
				t.Errorf("got  %s\nwant %s", got, s.want)
			}
		})
	}
}

func describeMachine(h hardware, warnings vm.Warnings) string {
	board := h.Board + " " + h.Firmware
	if h.TPM {
		board += " tpm"
	}
	if h.LocalTime {
		board += " local"
	}
	var disks, nics, codes []string
	for _, d := range h.Disks {
		kind := d.Bus
		if d.Adapter != "" {
			kind = d.Adapter
		}
		disks = append(disks, kind+" "+d.Slot())
	}
	for _, n := range h.NICs {
		text := n.Model + "=" + n.Device
		if n.Slot > 0 {
			text += fmt.Sprint(" ", n.Slot)
		}
		if n.Network != "" {
			text += " " + string(n.Network)
		}
		nics = append(nics, text)
	}
	for _, w := range warnings {
		codes = append(codes, string(w.Code))
	}
	slices.Sort(codes)
	return strings.Join([]string{board, strings.Join(disks, ", "), strings.Join(nics, ", "), strings.Join(codes, " ")}, "; ")
}

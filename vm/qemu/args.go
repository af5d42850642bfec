package qemu

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/process"
)

// setup is everything that QEMU's command line depends on.
type setup struct {
	vm.Machine
	cloneConfig

	accel   string // "kvm", "hvf" or "tcg"
	display string // "none", "gtk", "sdl" or "cocoa"
	efi     string // path of the EFI firmware's code, if the machine has EFI
	netdev  string // -netdev option with id=net0, or "" for a machine without a NIC
	sandbox bool   // QEMU has seccomp
	user    int    // user and group that QEMU becomes, or 0 to stay the daemon's
	runWith bool   // QEMU gets user by -run-with, as of 9.1, instead of -runas
}

// arguments returns the command line without the program. QEMU runs in
// Machine.Dir and gets file names relative to it, so that the sockets' paths
// stay short.
func arguments(s setup) []string {
	return slices.Concat(
		board(s),
		confinement(s),
		controls(),
		disks(s.Disks),
		nic(s),
		screen(s),
	)
}

// board returns the options of the mainboard, processors and memory. VMware's
// board is a 440BX; QEMU's pc is the closest model.
func board(s setup) []string {
	board, cpu, clock := "pc,accel="+s.accel, "max", "utc"
	if s.efi != "" {
		board += ",pflash0=efi-code,pflash1=efi-vars"
	}
	if s.accel == "tcg" {
		// Page tables of five levels make each miss of the emulated TLB more
		// expensive.
		cpu = "max,la57=off"
	}
	if strings.HasPrefix(s.GuestOS, "win") {
		clock = "localtime"
	}
	args := []string{
		"-name", process.GuestName(s.ID),
		"-uuid", s.ID,
		"-nodefaults", "-no-user-config",
		"-machine", board,
		"-cpu", cpu,
		"-smp", fmt.Sprintf("cpus=%d,sockets=1,cores=%d,threads=1", s.CPUs, s.CPUs),
		"-m", strconv.Itoa(s.Memory),
		"-rtc", "base=" + clock,
		"-boot", "strict=on",
		"-object", "rng-random,id=rng0,filename=/dev/urandom",
		"-device", "virtio-rng-pci,rng=rng0",
	}
	if s.efi != "" {
		args = append(args,
			"-blockdev", disk.RawBlockdev("efi-code", s.efi, true),
			"-blockdev", disk.RawBlockdev("efi-vars", varsFile, false))
	}
	return args
}

// confinement takes privileges from QEMU that it does not need, because a guest
// may break into it. If the daemon is root, QEMU opens its files and then
// becomes a user that owns nothing. Changing the user needs the system calls that
// elevateprivileges=deny forbids; afterwards QEMU has no privilege left that
// these calls could raise.
func confinement(s setup) []string {
	var args []string
	elevate := "deny"
	if s.user != 0 {
		elevate = "allow"
		option, prefix := "-runas", ""
		if s.runWith {
			option, prefix = "-run-with", "user="
		}
		args = append(args, option, fmt.Sprintf("%s%d:%d", prefix, s.user, s.user))
	}
	if s.sandbox {
		rules := "on,obsolete=deny,elevateprivileges=" + elevate
		if s.display == "none" {
			// A GUI toolkit starts helper processes and sets the scheduling of
			// its threads.
			rules += ",spawn=deny,resourcecontrol=deny"
		}
		args = append(args, "-sandbox", rules)
	}
	return args
}

// controls returns the options of the files and sockets by which the daemon
// reaches QEMU and the guest.
func controls() []string {
	return []string{
		"-pidfile", process.PIDFile,
		"-chardev", "socket,id=qmp,path=" + qmpSocket + ",server=on,wait=off",
		"-mon", "chardev=qmp,mode=control",
		"-chardev", "file,id=serial0,path=" + serialLog + ",append=on",
		"-device", "isa-serial,chardev=serial0",
		"-chardev", "socket,id=qga,path=" + agentSocket + ",server=on,wait=off",
		"-device", "virtio-serial-pci",
		"-device", "virtserialport,chardev=qga,name=org.qemu.guest_agent.0",
	}
}

// disks attaches every disk to a controller of its kind. The firmware tries the
// disks in this order.
func disks(disks []disk.Disk) []string {
	var args []string
	controllers := map[string]bool{}
	for i, d := range disks {
		node := fmt.Sprintf("disk%d", i)
		controller := fmt.Sprintf("%s%d", d.Bus, d.Controller)
		if device := controllerDevice(d); device != "" && !controllers[controller] {
			args = append(args, "-device", device+",id="+controller)
		}
		controllers[controller] = true
		args = append(args,
			"-blockdev", d.Blockdev(node),
			"-device", fmt.Sprintf("%s,drive=%s,bootindex=%d", diskDevice(d), node, i))
	}
	return args
}

// controllerDevice returns QEMU's device of the disk's controller, or "" if the
// board has that controller.
func controllerDevice(d disk.Disk) string {
	switch d.Bus {
	case "scsi":
		return scsiModels[d.Adapter].device
	case "sata":
		return "ich9-ahci"
	case "nvme":
		return fmt.Sprintf("nvme,serial=nvme%d", d.Controller)
	default:
		return ""
	}
}

// worldWideName returns the option for a SAS disk's name: Linux's driver ignores
// a disk without one. As on VMware, the name contains the number that IEEE gave
// to VMware, 0x000c29.
func worldWideName(d disk.Disk) string {
	if d.Adapter != "lsisas1068" {
		return ""
	}
	return fmt.Sprintf(",wwn=%#x", 0x5000c29_000000000|d.Controller<<8|d.Unit+1)
}

func diskDevice(d disk.Disk) string {
	switch d.Bus {
	case "scsi":
		return fmt.Sprintf("scsi-hd,bus=scsi%d.0,scsi-id=%d%s", d.Controller, d.Unit, worldWideName(d))
	case "sata":
		return fmt.Sprintf("ide-hd,bus=sata%d.%d", d.Controller, d.Unit)
	case "nvme":
		return fmt.Sprintf("nvme-ns,bus=nvme%d,nsid=%d", d.Controller, d.Unit+1)
	default:
		return fmt.Sprintf("ide-hd,bus=ide.%d,unit=%d", d.Controller, d.Unit)
	}
}

func nic(s setup) []string {
	if s.netdev == "" {
		return nil
	}
	// Without a ROM the firmware does not boot from the network, and the machine
	// starts faster.
	return []string{
		"-netdev", s.netdev,
		"-device", fmt.Sprintf("%s,netdev=net0,mac=%s,romfile=", nicModels[s.NIC], macAddress(s.ID)),
	}
}

// screen returns the options of VMware's graphics card. With a window it adds a
// pointer that follows the host's.
func screen(s setup) []string {
	args := []string{"-device", "vmware-svga", "-display", s.display}
	if s.display != "none" {
		args = append(args, "-device", "piix3-usb-uhci", "-device", "usb-tablet")
	}
	return args
}

package qemu

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"osx-builder/vm"
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

// guestName identifies the machine's QEMU in a list of processes.
func guestName(id string) string { return "guest=osxb-" + id }

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
		"-name", guestName(s.ID),
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
			"-blockdev", jsonText(rawFile("efi-code", s.efi, true)),
			"-blockdev", jsonText(rawFile("efi-vars", varsFile, false)))
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
		"-pidfile", pidFile,
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
func disks(disks []disk) []string {
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
			"-blockdev", jsonText(overlay(node, d)),
			"-device", fmt.Sprintf("%s,drive=%s,bootindex=%d", diskDevice(d), node, i))
	}
	return args
}

// controllerDevice returns QEMU's device of the disk's controller, or "" if the
// board has that controller.
func controllerDevice(d disk) string {
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
func worldWideName(d disk) string {
	if d.Adapter != "lsisas1068" {
		return ""
	}
	return fmt.Sprintf(",wwn=%#x", 0x5000c29_000000000|d.Controller<<8|d.Unit+1)
}

func diskDevice(d disk) string {
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

// overlay describes a disk down to its last layer, so that QEMU goes by no
// format or file name that it finds in a file.
func overlay(node string, d disk) map[string]any {
	below := vmdkChain(d.Backing)
	if d.Base != "" {
		below = layer("qcow2", d.Base, nil)
	}
	return map[string]any{
		"node-name": node, "driver": "qcow2", "discard": "unmap", "backing": below,
		"file": map[string]any{"driver": "file", "filename": d.Overlay, "discard": "unmap"},
	}
}

// vmdkChain describes VMDK files, of which the first is the uppermost.
func vmdkChain(files []string) (below any) {
	for _, path := range slices.Backward(files) {
		below = layer("vmdk", path, below)
	}
	return below
}

func layer(format, path string, below any) map[string]any {
	return map[string]any{
		"driver": format, "read-only": true, "backing": below,
		"file": map[string]any{"driver": "file", "filename": path},
	}
}

func rawFile(node, path string, readOnly bool) map[string]any {
	return map[string]any{
		"node-name": node, "driver": "raw", "read-only": readOnly,
		"file": map[string]any{"driver": "file", "filename": path},
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

// jsonText writes an option as JSON, in which no comma in a file name needs care.
func jsonText(value map[string]any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("writing %v as JSON: %v", value, err)) // strings, booleans and maps always are
	}
	return string(text)
}

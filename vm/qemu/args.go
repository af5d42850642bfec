package qemu

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"osx-builder/vm"
)

// setup is all that QEMU's command line depends on.
type setup struct {
	vm.Machine
	machine

	accel   string // "kvm", "hvf" or "tcg"
	display string // "none", "gtk", "sdl" or "cocoa"
	efi     string // path of the EFI firmware's code, if the machine has EFI
	netdev  string // -netdev option with id=net0, or "" to leave the NIC unplugged
	sandbox bool   // QEMU has seccomp
	user    int    // user and group that QEMU becomes, or 0 to stay the daemon's
	runWith bool   // QEMU is told of user by -run-with, as of 9.1, not by -runas
}

// arguments is the command line, without the program. File names without a
// folder are in Machine.Dir, where QEMU is started, so that the sockets' paths
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

// guestName is what tells the machine's QEMU from others in a list of processes.
func guestName(id string) string { return "guest=osxb-" + id }

// board is the bare machine: VMware's board is a 440BX, of which QEMU's pc is
// the nearest kin.
func board(s setup) []string {
	board, cpu, clock := "pc,accel="+s.accel, "max", "utc"
	if s.efi != "" {
		board += ",pflash0=efi-code,pflash1=efi-vars"
	}
	if s.accel == "tcg" {
		// Page tables of five levels make each miss of the emulated TLB dearer.
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

// confinement takes from QEMU what it does not need, since a guest may break
// into it. As root it opens the files it was told and then becomes a user that
// owns nothing; that needs the system calls which elevateprivileges=deny
// forbids, and leaves it no privilege they could raise.
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
			// A window's toolkit starts helpers and places its threads.
			rules += ",spawn=deny,resourcecontrol=deny"
		}
		args = append(args, "-sandbox", rules)
	}
	return args
}

// controls are the ways in which the daemon reaches QEMU and the guest.
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

// disks plugs every disk into a controller of its kind. The firmware tries
// them in their order.
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

// controllerDevice is QEMU's controller for the disk, or "" where the board
// has it.
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

// worldWideName is that of a SAS disk: Linux's driver leaves a disk without one
// alone. VMware's, too, begin with the number that IEEE gave VMware, 0x000c29.
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
	// Without a ROM the card is not booted from, and the machine starts sooner.
	return []string{
		"-netdev", s.netdev,
		"-device", fmt.Sprintf("%s,netdev=net0,mac=%s,romfile=", nicModels[s.NIC], macAddress(s.ID)),
	}
}

// screen is VMware's graphics card and, where somebody sees it, a pointer that
// follows the host's.
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

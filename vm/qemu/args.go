package qemu

import (
	"fmt"
	"os"
	"slices"
	"strconv"

	"osx-builder/vm"
	"osx-builder/vm/qemu/cgroup"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/process"
)

// setup is everything that QEMU's command line depends on.
type setup struct {
	vm.Machine
	cloneConfig

	accel   string // "kvm", "hvf" or "tcg"
	display string // "none", "gtk", "sdl" or "cocoa"
	sandbox bool   // QEMU has seccomp
	user    int    // user and group of QEMU, or 0: the daemon's
	runWith bool   // QEMU gets user by -run-with, as of 9.1, instead of -runas
	slots   bool   // QEMU has ACPI hot-plug of PCI Express, as of 6.1, which hides the slots' numbers
	lpa2    bool   // QEMU emulates ARM's large physical addresses, as of 7.0
	stale   bool   // QEMU may run code that the guest has replaced; see [binary.runsStaleCode]

	groups *cgroup.Groups // QEMU runs in one of them

	attachments // of the NICs
	handed      // set by open

	mac string // of the first NIC, if it is not the machine's own
	ram ram
}

// ram is how QEMU gets memory that it shares with others.
type ram struct {
	memory   *os.File // nil: the machine has its own
	path     string   // at which QEMU opens it; set by open
	share    bool     // what the guest writes is written to the memory
	incoming bool     // QEMU waits for the state of its devices
	events   int      // the listening socket of a second monitor; set by open
}

// options returns the options besides those of the board.
func (r ram) options(mib int) []string {
	if r.path == "" {
		return nil
	}
	share := "off"
	if r.share {
		share = "on"
	}
	args := []string{"-object", fmt.Sprintf("memory-backend-file,id=ram,size=%dM,mem-path=%s,share=%s", mib, r.path, share)}
	if r.incoming {
		args = append(args, "-incoming", "defer", "-S",
			"-chardev", fmt.Sprintf("socket,id=events,fd=%d,server=on,wait=off", r.events),
			"-mon", "chardev=events,mode=control")
	}
	return args
}

// arguments returns the command line without the program. QEMU gets its files
// open: it opens none by its name.
func arguments(s setup) []string {
	return slices.Concat(
		s.sets,
		board(s),
		confinement(s),
		controls(s),
		tpmOptions(s),
		disks(s),
		nicOptions(s),
		screen(s),
		guestConfig(s),
	)
}

// board returns the options of the mainboard, processors and memory.
func board(s setup) []string {
	board, accel, clock := s.Board, s.accel, "utc"
	if accel == "tcg" && s.stale && s.CPUs > 1 {
		accel += ",thread=single" // the processors take turns
	}
	if s.firmware.code != "" {
		board += ",pflash0=efi-code,pflash1=efi-vars"
	}
	if s.SecureBoot {
		board += ",smm=on"
	}
	if s.Board == boardVirt {
		board += ",gic-version=max" // the oldest one has room for 8 processors
	}
	if s.ram.path != "" {
		board += ",memory-backend=ram"
	}
	if s.LocalTime {
		clock = "localtime"
	}
	args := []string{
		"-name", process.GuestName(s.ID),
		"-uuid", s.ID,
		"-nodefaults", "-no-user-config",
		"-machine", board, "-accel", accel,
		"-cpu", processor(s),
		"-smp", fmt.Sprintf("cpus=%d,sockets=1,cores=%d,threads=1", s.CPUs, s.CPUs),
		"-m", strconv.Itoa(s.Memory),
		"-rtc", "base=" + clock,
		"-boot", "strict=on",
		"-object", "rng-random,id=rng0,filename=" + s.random,
		"-device", "virtio-rng-pci,rng=rng0",
	}
	if s.Board != boardVirt {
		args = append(args, "-device", "vmgenid,guid=auto") // a guest that continues from saved memory draws new random numbers
	}
	args = append(args, s.ram.options(s.Memory)...)
	if s.Board == boardQ35 && s.slots {
		// With ACPI's hot-plug the guest does not see the numbers of the slots.
		args = append(args, "-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off")
	}
	if s.SecureBoot {
		// Only the firmware's own code, which runs in system management mode, may change the keys.
		args = append(args, "-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1")
	}
	if s.firmware.code != "" {
		args = append(args,
			"-blockdev", disk.RawBlockdev("efi-code", s.firmware.code, true),
			"-blockdev", disk.RawBlockdev("efi-vars", s.firmware.vars, false))
	}
	return args
}

// processor returns the model of the processor. Page tables of five levels make each miss of the emulated TLB more
// expensive, and the emulation of ARM's own algorithm for signed pointers is slow. Debian's firmware fails on a processor
// with ARM's large physical addresses.
func processor(s setup) string {
	switch {
	case s.accel != "tcg" && s.Board == boardVirt:
		return "host"
	case s.accel != "tcg":
		return "max"
	case s.Board == boardVirt && s.lpa2:
		return "max,pauth-impdef=on,lpa2=off"
	case s.Board == boardVirt:
		return "max,pauth-impdef=on"
	default:
		return "max,la57=off"
	}
}

// confinement takes privileges from QEMU that it does not need, because a guest
// may break into it. Without a window QEMU has none from its start; see
// [setup.rules]. With a window a QEMU of root opens the window and then becomes
// user, which needs the system calls that elevateprivileges=deny forbids.
func confinement(s setup) []string {
	var args []string
	elevate := "deny"
	if s.user != 0 && s.hasWindow() {
		elevate = "allow"
		option, prefix := "-runas", ""
		if s.runWith {
			option, prefix = "-run-with", "user="
		}
		args = append(args, option, fmt.Sprintf("%s%d:%d", prefix, s.user, s.user))
	}
	if s.sandbox {
		rules := "on,obsolete=deny,elevateprivileges=" + elevate
		if !s.hasWindow() {
			// A GUI toolkit starts helper processes and sets the scheduling of
			// its threads.
			rules += ",spawn=deny,resourcecontrol=deny"
		}
		args = append(args, "-sandbox", rules)
	}
	return args
}

// hasWindow reports whether a window shows the machine's screen.
func (s setup) hasWindow() bool { return s.display != "none" }

// controls returns the options of the files and sockets by which the daemon
// reaches QEMU and the guest.
func controls(s setup) []string {
	serial := []string{"-device", "isa-serial,chardev=serial0"}
	if s.Board == boardVirt {
		serial = []string{"-serial", "chardev:serial0"}
	}
	// Port 0 of the agent's device is a console's. QEMU sets up two queues for each port at each start.
	return append(serial,
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d,server=on,wait=off", s.monitor),
		"-mon", "chardev=qmp,mode=control",
		"-chardev", "file,id=serial0,append=on,path="+s.serial,
		"-chardev", fmt.Sprintf("socket,id=qga,fd=%d,server=on,wait=off", s.agent),
		"-device", "virtio-serial-pci,max_ports=2",
		"-device", "virtserialport,chardev=qga,name=org.qemu.guest_agent.0")
}

// disks attaches every disk to a controller of its kind. The firmware tries the
// disks in this order.
func disks(s setup) []string {
	var args []string
	controllers := map[string]bool{}
	for i, d := range s.Disks {
		node := nodeOf(i)
		if device := controllerDevice(s.Board, d); device != "" && !controllers[device] {
			args = append(args, "-device", device)
			controllers[device] = true
		}
		args = append(args,
			"-blockdev", s.blockdevs[i],
			"-device", fmt.Sprintf("%s,drive=%s,bootindex=%d", diskDevice(s.Board, d), node, i))
	}
	return args
}

// nodeOf is QEMU's name of a disk.
func nodeOf(disk int) string { return fmt.Sprintf("disk%d", disk) }

// screen returns the options of the graphics card, which is VMware's except on ARM. With a window it adds a pointer that
// follows the host's.
func screen(s setup) []string {
	if s.Board == boardVirt {
		return []string{
			"-device", "virtio-gpu-pci", "-display", s.display,
			"-device", "qemu-xhci", "-device", "usb-kbd", "-device", "usb-tablet",
		}
	}
	args := []string{"-device", "vmware-svga", "-display", s.display}
	if s.hasWindow() {
		args = append(args, "-device", "piix3-usb-uhci", "-device", "usb-tablet")
	}
	return args
}

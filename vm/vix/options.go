package vix

import (
	"log/slog"
	"time"

	"osx-builder/vm"
)

// Options says how to reach VMware. Gold and Dir are required; the zero value of every
// other field stands for what its comment says.
type Options struct {
	// Gold is the absolute path of the folder with the unpacked images, each in
	// a folder of its name.
	Gold string

	// Dir is where the bases of clones are kept, in the folder "vmware" of a
	// folder of the image's name. It is made if absent. On the file system of the
	// images a base takes next to no room; on another one it takes a copy of the
	// image.
	Dir string

	// Library is the path of VMware's libvixAllProducts. Where it is empty the
	// places that VMware's installers use are tried.
	Library string

	// HostOptions are the options of VixHost_Connect. Where they are 0 and
	// VMware answers on macOS that there is no licence, 0x200 is tried too: the
	// bit that VMware's own vmrun sets, without which Fusion 26 refuses.
	HostOptions int

	// Log gets what no caller is told. Nothing is logged without it.
	Log *slog.Logger

	// Leases are the files of VMware's DHCP servers, by the network that each
	// serves. Nil means those that VMware's installers make.
	Leases map[vm.NetworkType]string

	Deadlines Deadlines
}

// Deadlines bound what one call of VMware's library may take. A call that takes
// longer fails, while VMware goes on with it. Destroy takes at most four times
// Stop and once Locks, within what the API gives an answer.
type Deadlines struct {
	Connect time.Duration // reaching VMware; 30 s
	Look    time.Duration // opening a machine or reading its state; 5 s
	Clone   time.Duration // a snapshot and a linked clone; 5 min
	Start   time.Duration // powering on; 2 min
	Stop    time.Duration // powering off or deleting; 40 s
	Locks   time.Duration // until a machine that is off is unlocked; 2 min
	Tools   time.Duration // one wait for the guest's tools, of many; 5 s, at least 1 s
}

package vix

import (
	"log/slog"
	"time"

	"osx-builder/vm"
)

// Options configures a [Driver]. Gold and Dir are required.
type Options struct {
	// Gold is the absolute path of the folder with the unpacked images, each in a folder with its name.
	Gold string

	// Dir is the folder for the base machines that clones are made of. The base of an image is in the folder "vmware"
	// of a folder with the image's name. Dir is created if it is absent. If it is on the file system of the images, a
	// base needs almost no disk space; otherwise it is a copy of the image.
	Dir string

	// Library is the path of VMware's libvixAllProducts. If it is empty, the library is searched where VMware's
	// installers put it.
	Library string

	// HostOptions are the options of VixHost_Connect. If they are 0 and VMware answers on macOS that there is no
	// licence, 0x200 is tried too: VMware's own vmrun sets this bit, without which Fusion 26 refuses the connection.
	HostOptions int

	// Log is the log for what no caller learns. If it is nil, nothing is logged.
	Log *slog.Logger

	// Leases are the lease files of VMware's DHCP servers, by network. If it is nil, the files are those of VMware's
	// installers.
	Leases map[vm.NetworkType]string

	Deadlines Deadlines
}

// Deadlines bound single calls of VMware's library. If a call takes longer, it fails for the caller while VMware
// continues it. Destroy takes at most four times Stop and once Unlock, which is less than the API's time limit.
type Deadlines struct {
	Connect time.Duration // connecting to VMware; 30 s
	Read    time.Duration // opening a machine or reading its state; 5 s
	Clone   time.Duration // taking a snapshot and making a linked clone; 5 min
	Start   time.Duration // powering on; 2 min
	Stop    time.Duration // powering off or deleting; 40 s
	Unlock  time.Duration // until a machine that is off is unlocked; 2 min
	Tools   time.Duration // one of many waits for the guest's tools; 5 s, at least 1 s
}

package vix

import (
	"log/slog"

	"osx-builder/vm/vmware"
)

// Options configures a [Driver]. Gold and Dir are required.
type Options struct {
	// Gold is the absolute path of the folder with the unpacked images, each in a folder with its name.
	Gold string

	// Dir is the folder for the base machines that clones are made of. The base of an image is in the folder "vmware"
	// of a folder with the image's name. Dir is created if it is absent. If it is on the file system of the images, a
	// base needs almost no disk space; otherwise it is a copy of the image.
	Dir string

	// HostIDs is the path of a file in which the driver stores VMware's IDs of this host, with which it tells the locks
	// of other hosts from its own. If it is empty, they are not stored.
	HostIDs string

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
	Leases vmware.Leases

	Deadlines vmware.Deadlines
}

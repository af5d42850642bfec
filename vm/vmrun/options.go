package vmrun

import (
	"log/slog"

	"osx-builder/vm/vmware"
)

// Options configures a [Driver]. Gold and Dir are required.
type Options struct {
	// Gold, Dir and HostIDs are those of vix.Options.
	Gold, Dir, HostIDs string

	// Program is the absolute path of vmrun. If it is empty, vmrun is searched where VMware's installers put it, and
	// then in the folders of PATH.
	Program string

	// Log is the log for what no caller learns. If it is nil, nothing is logged.
	Log *slog.Logger

	// Leases are the lease files of VMware's DHCP servers, by network. If it is nil, the files are those of VMware's
	// installers.
	Leases vmware.Leases

	// Deadlines bound single calls of vmrun.
	Deadlines vmware.Deadlines
}

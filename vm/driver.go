package vm

import (
	"context"
	"errors"
	"io"
	"time"
)

// Driver creates, runs and destroys machines.
//
// It keeps nothing in memory that it cannot find again in Machine.Dir. Every
// method may be repeated after an interruption at any point (a cancelled
// context, a crash of the daemon or of the host) and must then finish the
// work. The Manager calls Clone, Start and Destroy for one machine one at a
// time. Inspect may run at any time, even during those calls. Calls for
// different machines run at once.
//
// A cancelled context ends a call soon, with an error that wraps the context's.
// The next call finishes what it left unfinished, or Destroy removes it. An
// error that a client may see is an *[Error]; any other reaches the client as
// [CodeHypervisor].
//
// vmtest.TestDriver checks this contract.
type Driver interface {
	// Clone makes a linked clone of the unpacked image whose .vmx file is gold
	// into m.Dir, which it creates. It does not change a clone that is
	// complete, and replaces one that is not. It never writes to the gold
	// image.
	Clone(ctx context.Context, m Machine, gold string) error

	// Start powers the cloned machine on and returns once the hypervisor runs
	// it. It is a no-op while the machine runs. If the machine's process on the
	// host died, the error wraps ErrDied.
	Start(ctx context.Context, m Machine) error

	// Inspect reads the machine's live state. For a machine that was never
	// created, or was destroyed, it returns the zero Status and no error. An
	// error means that the machine exists but cannot be read.
	Inspect(ctx context.Context, m Machine) (Status, error)

	// Destroy powers the machine off without asking its guest, removes it from
	// the hypervisor and removes m.Dir. Only ID and Dir of m need to be set. It
	// is a no-op for a machine that was never created.
	Destroy(ctx context.Context, m Machine) error

	// Sweep removes what the host holds of machines of the data folder that
	// are not known and that have no folder: processes, network devices,
	// leases. It is called before any other method. It changes nothing of
	// machines that are known or that belong to another data folder.
	Sweep(ctx context.Context, known func(id string) bool) error

	// Limits returns the largest machine that the host can run. It does not
	// block.
	Limits() Limits

	// Network returns nil if machines can be attached to a network of type t.
	// Otherwise it returns an *Error of CodeNetworkUnavailable that says why
	// they cannot and what to do. It does not block.
	Network(t NetworkType) error

	// Ready returns nil if a machine could be created now. Otherwise it returns
	// an *Error of CodeHypervisorUnavailable that says what is missing and how
	// to get it.
	Ready(ctx context.Context) error

	// Describe returns facts about the hypervisor for an operator to read: its
	// version, its acceleration, its networks. It may return nil.
	Describe(ctx context.Context) map[string]string
}

// Machine is what a Driver knows about a machine.
type Machine struct {
	ID         string      // UUID, canonical lower-case form
	Name       string      // an RFC 1123 label that no other machine has, or ""; a DNS name on networks that the driver manages
	Dir        string      // absolute path; the driver owns everything in it
	CPUs       int         // virtual processors, at least 1
	Memory     int         // MiB, a multiple of 4
	Disk       int64       // bytes of the first disk, at least the image's; 0: the image's. Only a DiskGrower gets another value
	Network    NetworkType // what the first NIC is attached to
	Forward    []int       // TCP ports of the guest that the host must reach, without repeats
	LaunchGUI  bool        // show the machine's screen if there is a display
	Start      StartMode   // how it is started for the first time; a driver that cannot, or not now, boots it and says why in Status.Warnings
	Annotation string      // one printable line that says where the machine comes from; set for Clone and Start

	// Guest is what the guest configures itself with, or nil. A driver hands it over in the forms of package cloudinit,
	// at Clone or at each Start, and keeps it where nobody but the guest and the daemon's user reads it.
	Guest *GuestConfig `json:"-"`

	// Progress, unless it is nil, is for a Clone that copies for long: it takes the bytes that are copied and all of
	// them. It returns at once, and may be called at any time during Clone.
	Progress func(done, total int64) `json:"-"`
}

// Hostname returns the name that the guest is to have: the request's host name, otherwise the machine's name, or "".
func (m Machine) Hostname() string {
	if m.Guest != nil && m.Guest.Hostname != "" {
		return m.Guest.Hostname
	}
	return m.Name
}

// Status is a machine's live state. The zero Status is that of a machine that
// does not exist.
type Status struct {
	Power   Power
	IP      string // address at which this host reaches the guest, or ""
	Tools   Tools
	GuestOS string // the .vmx file's guestOS
	CPUs    int
	Memory  int    // MiB
	MAC     string // of the first NIC: six lower-case hex pairs with colons, or ""

	// NICs are the machine's network cards in the order of the image. MAC and IP
	// are those of the first.
	NICs []NIC

	// Start is how the machine that runs, or ran last, was started. The empty
	// StartMode means that it booted.
	Start StartMode

	// Warnings say what the image has that the machine does not have, or has in
	// another form. They are the same from Clone to Destroy.
	Warnings Warnings

	// Addresses are all known addresses of the guest, on any NIC, without
	// link-local ones.
	Addresses []string

	// Forwards says which host ports lead to which guest ports, if the host
	// cannot reach the guest in another way.
	Forwards []PortForward

	// Up reports whether the guest has given a sign of life: its tools answered,
	// or it has an address.
	Up bool

	// Fault says which of the machine's disks could not be read or written for
	// the guest, or is nil. It fails a creation. Its Message is one printable line.
	Fault *Error

	// StoppedBecause says in one printable line why a machine that ran is
	// off. It is empty if the hypervisor does not know.
	StoppedBecause string

	// Died reports whether the machine is off because its process on the host ended,
	// which neither its guest nor a client wanted.
	Died bool
}

// ErrDied means that a machine's process on the host ended by itself.
var ErrDied = errors.New("the machine's process died")

// Power is a machine's power state. The values are VIX's.
type Power string

// The power states. The empty Power means that there is no machine.
const (
	PoweredOn   Power = "powered-on"
	PoweredOff  Power = "powered-off"
	PoweringOn  Power = "powering-on"
	PoweringOff Power = "powering-off"
	Suspended   Power = "suspended"
	Suspending  Power = "suspending"
	Resetting   Power = "resetting"
	Paused      Power = "paused"
	Blocked     Power = "blocked" // waits for an operator, because of a question or a fault
)

// Action changes a machine's power state.
type Action string

// The actions.
const (
	ActionOn       Action = "on"       // Driver.Start does it
	ActionOff      Action = "off"      // at once, without asking the guest
	ActionShutdown Action = "shutdown" // asks the guest to shut down
	ActionReset    Action = "reset"    // at once, without asking the guest
	ActionSuspend  Action = "suspend"
	ActionResume   Action = "resume" // continues where the machine was suspended
)

// The bounds of consoles, in bytes.
const (
	ConsoleTail = 1 << 20         // a reader can begin so far from the end
	ConsoleKept = 2 * ConsoleTail // a driver keeps at least so much, so that a reader has time
)

// Tools says whether the software inside the guest that talks to the
// hypervisor answers: VMware Tools, or QEMU's guest agent.
type Tools string

// The tools states.
const (
	ToolsRunning    Tools = "running"
	ToolsNotRunning Tools = "not-running"
	ToolsUnknown    Tools = "unknown"
)

// NetworkType is what a machine's NIC is attached to. The values are VMware's.
type NetworkType string

// The network types.
const (
	Bridged  NetworkType = "bridged"
	NAT      NetworkType = "nat"
	HostOnly NetworkType = "hostonly"
)

// NIC is one of a machine's network cards.
type NIC struct {
	Model       string      `json:"model"`        // VMware's name of it, such as "vmxnet3" or "e1000"
	MACAddress  string      `json:"mac_address"`  // as in Status, or "" before it is known
	NetworkType NetworkType `json:"network_type"` // what it is attached to
	IPAddress   string      `json:"ip_address"`   // the guest's address on it, or "" while none is known
}

// PortForward is a TCP port of the host's loopback address that leads to a
// port of the guest.
type PortForward struct {
	Host  int `json:"host"`
	Guest int `json:"guest"`
}

// Limits is the largest machine that a host can run.
type Limits struct {
	CPUs     int // virtual processors
	Memory   int // MiB
	HostCPUs int // the host's processors, which may be fewer than CPUs; 0 if they are not known

	// AllMemory is how much memory all machines can have together, in MiB, if a hypervisor has several hosts. 0 means
	// Memory.
	AllMemory int

	// Templates is how much memory templates for starting from memory take, in MiB. It counts like that of machines.
	Templates int

	// Addresses is how many machines can be attached to a network of each type. A type that is missing has no limit.
	Addresses map[NetworkType]int
}

// The interfaces below are optional: the Manager finds out by type assertion
// whether a Driver has them.
type (
	// Consoler opens the log of what the guest wrote to its first serial port
	// since the machine was made. The log grows while it is read, so a reader
	// at its end can read again later. The last ConsoleKept bytes keep their
	// offsets; before them the log may read as zeroes. On a file system without
	// holes the log is emptied in place instead. For a machine that never ran
	// the error is fs.ErrNotExist. It may be called at any time.
	Consoler interface {
		Console(ctx context.Context, m Machine) (io.ReadSeekCloser, error)
	}

	// DiskGrower gives a machine a first disk that is larger than its image's: Clone makes it of Machine.Disk bytes.
	// FirstDisk returns the size in bytes of the first disk of the unpacked image whose .vmx file is gold. It may be
	// called at any time.
	DiskGrower interface {
		FirstDisk(gold string) (bytes int64, err error)
	}

	// ImagePreparer makes what the machines of an image will need, ahead of the first one. gold is as for Clone. It is a
	// no-op if everything is there. It may be repeated after an interruption at any point.
	ImagePreparer interface {
		PrepareImage(ctx context.Context, gold string) error
	}

	// Screenshotter returns what the machine's screen shows, as a PNG image.
	// It may be called at any time. If the machine has no screen to show, for
	// example because it is off, the error is an *Error of CodePower.
	Screenshotter interface {
		Screenshot(ctx context.Context, m Machine) ([]byte, error)
	}

	// Powerer changes a machine's power state by every Action but ActionOn.
	// The Manager calls it like Start, not beside another call that changes
	// the machine, and only if Inspect returned a state that allows the
	// action. It may be repeated after an interruption at any point. It is a
	// no-op if the machine is already in the action's state, and returns once
	// the machine is in that state; for ActionShutdown it returns once the
	// guest has been asked. A suspended machine stays suspended, and Inspect
	// says so, until it is resumed or switched off.
	Powerer interface {
		Power(ctx context.Context, m Machine, a Action) error
	}

	// Lister reads the live state of many machines in few calls, if its
	// hypervisor is on other hosts. The Manager then lists machines with it
	// instead of inspecting each. The result has the status of each of the
	// machines that exists, by ID, as Inspect returns it. A machine that is not
	// where the driver put it may be missing. It may be called at any time.
	Lister interface {
		List(ctx context.Context, machines []Machine) (map[string]Status, error)
	}

	// Watcher calls changed after the state of machines may have changed, until
	// ctx ends or it cannot go on. It need not notice every change: the Manager
	// also looks by itself, but less often while Watch runs. changed returns at
	// once. It may be called again after it has returned.
	Watcher interface {
		Watch(ctx context.Context, changed func()) error
	}

	// ImageKeeper keeps images on its hypervisor, besides the unpacked image on
	// this host, for the machines of all data folders that use the hypervisor.
	// RemoveImage is a no-op for an image that is not kept. While a machine
	// needs it, the error is an *Error of CodeImageInUse. Both may be called at
	// any time.
	ImageKeeper interface {
		KeptImages(ctx context.Context) ([]KeptImage, error)
		RemoveImage(ctx context.Context, image string) error
	}
)

// KeptImage is an image that a hypervisor keeps.
type KeptImage struct {
	Image     string    // the type and the sum of its archive, as in "sha256-0123"
	Bytes     int64     // that it takes there; 0 if unknown
	Machines  int       // of any data folder that need it
	CreatedAt time.Time // UTC; zero if unknown
}

package vm

import (
	"context"
	"io"
)

// Driver makes, runs and destroys machines.
//
// It keeps nothing in memory that it cannot find again in Machine.Dir. Every
// method may be repeated after an interruption at any point (a cancelled
// context, a crash of the daemon or of the host) and must then finish the
// work. The Manager calls Clone, Start and Destroy of one machine one at a
// time; Inspect may run at any time, also beside them. Calls for different
// machines run at once.
//
// A cancelled context ends a call soon with an error that wraps the context's;
// what it left half done is for the next call to finish or for Destroy to
// remove. An error that a client may see is an *Error; any other reaches the
// client as CodeHypervisor.
//
// vmtest.TestDriver checks these promises.
type Driver interface {
	// Clone makes a linked clone of the unpacked image whose .vmx is at gold
	// into m.Dir, which it creates. Of a clone that is already whole it
	// changes nothing; a half-made one it makes anew. It never writes to the
	// gold image.
	Clone(ctx context.Context, m Machine, gold string) error

	// Start powers the cloned machine on and returns once the hypervisor runs
	// it. It is a no-op while the machine runs.
	Start(ctx context.Context, m Machine) error

	// Inspect reads the machine's live state. Of a machine that was never
	// made, or was destroyed, it returns the zero Status and no error. An
	// error means that the machine exists but cannot be read.
	Inspect(ctx context.Context, m Machine) (Status, error)

	// Destroy powers the machine off without asking its guest, makes the
	// hypervisor forget it and removes m.Dir. Only ID and Dir of m need to be
	// set. It is a no-op for a machine that was never made.
	Destroy(ctx context.Context, m Machine) error
}

// Machine is what a Driver knows of a machine.
type Machine struct {
	ID         string      // UUID, canonical lower-case form
	Dir        string      // absolute path; the driver owns all that is in it
	CPUs       int         // virtual processors, at least 1
	Memory     int         // MiB, a multiple of 4
	Network    NetworkType // what the first NIC is attached to
	Forward    []int       // TCP ports of the guest that the host is to reach, each once
	LaunchGUI  bool        // show the machine's screen where there is a display
	Annotation string      // one printable line that says where the machine comes from; Clone and Start are told
}

// Status is a machine's state as its hypervisor tells it now. The zero Status
// is that of a machine that does not exist.
type Status struct {
	Power   Power
	IP      string // address at which this host reaches the guest, or ""
	Tools   Tools
	GuestOS string // the .vmx file's guestOS
	CPUs    int
	Memory  int    // MiB
	MAC     string // of the first NIC: six lower-case hex pairs with colons, or ""

	// Addresses are all that the guest is known to have, on any NIC, without
	// those that are valid on one link alone.
	Addresses []string

	// Forwards says which host ports lead to which guest ports, where the
	// host reaches the guest in no other way.
	Forwards []PortForward

	// Up is set once the guest has given a sign of life: its tools answered,
	// or it took an address.
	Up bool
}

// Power is a machine's power state, in VIX's words.
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
	Blocked     Power = "blocked" // a question or a fault waits for an operator
)

// Action is what is done to a machine's power.
type Action string

// The actions.
const (
	On       Action = "on"       // Driver.Start; no Powerer is asked for it
	Off      Action = "off"      // at once, without asking the guest
	Shutdown Action = "shutdown" // the guest is asked to end in order
	Reset    Action = "reset"    // at once, without asking the guest
	Suspend  Action = "suspend"
	Resume   Action = "resume" // goes on where it was suspended
)

// The bounds of consoles.
const (
	ConsoleTail = 1 << 20         // bytes from the end where a reader can begin
	ConsoleKept = 2 * ConsoleTail // bytes that are kept at least, so that a reader has time
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

// NetworkType is what a machine's NIC is attached to, in VMware's words.
type NetworkType string

// The network types.
const (
	Bridged  NetworkType = "bridged"
	NAT      NetworkType = "nat"
	HostOnly NetworkType = "hostonly"
)

// PortForward is a TCP port of the host's loopback address that leads to a
// port of the guest.
type PortForward struct {
	Host  int `json:"host"`
	Guest int `json:"guest"`
}

// Limits is the largest machine that a host can run.
type Limits struct {
	CPUs   int // virtual processors
	Memory int // MiB
}

// The powers below are optional: the Manager asks a Driver for them by type
// assertion and does without where they are missing.
type (
	// Limiter says how large a machine may be. It does not block.
	Limiter interface {
		Limits() Limits
	}

	// Networker returns nil where machines can be attached to a network of
	// type t, and else an *Error of CodeNetworkUnavailable that says why not
	// and what to do. It does not block.
	Networker interface {
		Network(t NetworkType) error
	}

	// Readier returns nil where a machine could be made now, and else an
	// *Error of CodeHypervisorUnavailable that says what is missing and how
	// to get it.
	Readier interface {
		Ready(ctx context.Context) error
	}

	// Sweeper removes what the host holds of machines of the data folder that
	// are not known, and of which no folder is left: processes, network
	// devices, leases. It is called before any other method, and changes
	// nothing of machines that are known or of another data folder.
	Sweeper interface {
		Sweep(ctx context.Context, known func(id string) bool) error
	}

	// Consoler opens the log of what the guest wrote to its first serial port
	// since the machine was made. It is written on while it is read, so a
	// reader at its end reads on later. Its last ConsoleKept bytes are kept in
	// their places; before them it may read as zeroes. Where the disk knows no
	// such holes the log is emptied in place instead. Of a machine that never
	// ran the error is fs.ErrNotExist. It may be called at any time.
	Consoler interface {
		Console(ctx context.Context, m Machine) (io.ReadSeekCloser, error)
	}

	// Screenshoter returns what the machine's screen shows, as a PNG image.
	// It may be called at any time. Of a machine that has no screen to show
	// now, one that is off above all, the error is an *Error of CodePower.
	Screenshoter interface {
		Screenshot(ctx context.Context, m Machine) ([]byte, error)
	}

	// Powerer does to a machine what its buttons do; it is switched on by
	// Start. It is called in the machine's turn, like Start, and only where
	// Inspect told a state that allows the action. It may be repeated after an
	// interruption at any point, is a no-op where what is wanted is so
	// already, and returns when it is so, but for Shutdown, which returns when
	// the guest has been asked. A suspended machine stays so, and Inspect says
	// so, until it is resumed or switched off.
	Powerer interface {
		Power(ctx context.Context, m Machine, a Action) error
	}

	// Describer tells facts about the hypervisor that an operator wants to
	// read: its version, its acceleration, its networks.
	Describer interface {
		Describe(ctx context.Context) map[string]string
	}
)

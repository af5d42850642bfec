package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"osx-builder/vm"
	"osx-builder/vm/qemu/process"
	"osx-builder/vm/qemu/qmp"
)

// Inspect asks the machine's QEMU, which takes milliseconds but may take most of
// ctx's time. Then it asks the guest's agent if the agent has opened its port, which
// takes at most [qmp.AgentTimeout]. On the user network it does not wait for the probe
// that finds out whether the guest is up.
func (d *Driver) Inspect(ctx context.Context, m vm.Machine) (vm.Status, error) {
	if err := ctx.Err(); err != nil {
		return vm.Status{}, context.Cause(ctx)
	}
	pid, err := process.Holder(m.Dir)
	if err != nil {
		return vm.Status{}, unreadable(m, process.PIDFile, err)
	}
	continued := d.memory.awaiting.has(m.Dir) // asked first: afterwards the configuration says so
	clone, err := readConfig(m.Dir)
	if missing(err) && pid == 0 {
		return vm.Status{}, nil
	}
	if err != nil {
		return vm.Status{}, unreadable(m, machineFile, err)
	}
	st := vm.Status{Power: vm.PoweredOff, GuestOS: clone.GuestOS, CPUs: m.CPUs, Memory: m.Memory, Tools: vm.ToolsNotRunning, Warnings: clone.Warnings}
	for i, n := range clone.NICs {
		st.NICs = append(st.NICs, vm.NIC{Model: n.Model, MACAddress: macOf(m.ID, i).String(), NetworkType: n.network(m)})
		st.MAC = st.NICs[0].MACAddress
	}
	if clone.Template != nil && clone.Template.Loaded {
		st.Start = vm.StartMemory
	}
	if pid == 0 {
		return d.fillEnding(ctx, m, st), nil
	}
	if clone.Template != nil && !clone.Template.Loaded { // QEMU is not asked, because it or its guest would take longer
		st.Power = vm.PoweringOn
		if attached := readAttachments(m.Dir); continued && attached.Inner != nil {
			st.Power, st.Start, st.Tools = vm.PoweredOn, vm.StartMemory, vm.ToolsUnknown
			fillOuter(attached.attachment, &st)
		}
		return st, nil
	}
	live, err := d.queries.read(ctx, m.Dir, pid)
	if err != nil {
		return classify(ctx, d, m, pid, st, err)
	}
	// QEMU does not know whether an agent that continues has its port open.
	live.agentOpen = live.agentOpen || clone.Template != nil && clone.Template.Agent
	if d.memory.clocks.has(m.Dir) {
		live.agentOpen = false
	}
	st.Power, st.CPUs, st.Memory = live.power, live.cpus, live.memory
	if st.Power == vm.Paused && wasSuspended(m.Dir) {
		st.Power = vm.Suspended
	}
	if st.Fault = diskFault(clone, live); st.Fault == nil {
		st.Fault = tpmFault(m.Dir, pid, clone)
	}
	if err := d.fillGuest(ctx, m, pid, live, &st); err != nil {
		return vm.Status{}, err
	}
	return st, nil
}

// classify returns the state of a machine whose QEMU did not answer, or an error
// that says why the state is not known.
func classify(ctx context.Context, d *Driver, m vm.Machine, pid int, st vm.Status, err error) (vm.Status, error) {
	switch {
	case errors.Is(ctx.Err(), context.Canceled): // the caller has gone
		return vm.Status{}, fmt.Errorf("asking QEMU: %w", context.Cause(ctx))
	case !process.Holds(m.Dir, pid): // it has just ended
		return d.fillEnding(ctx, m, st), nil
	case d.starting.has(m.Dir):
		st.Power = vm.PoweringOn
		return st, nil
	default:
		return vm.Status{}, notAnswering(m, pid, err)
	}
}

// fillEnding fills in how a machine without a process ended. It waits for a shell
// that has not written this down yet.
func (d *Driver) fillEnding(ctx context.Context, m vm.Machine, st vm.Status) vm.Status {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout(ctx))
	defer cancel()
	pid := 0
	written := process.Wait(ctx, "the end of QEMU", func() bool {
		pid, _ = process.Holder(m.Dir)
		return pid != 0 || d.starting.has(m.Dir) || !process.IsSupervised(m.Dir)
	})
	if pid != 0 || d.starting.has(m.Dir) {
		st.Power = vm.PoweringOn
		return st
	}
	d.agents.Release(filepath.Join(m.Dir, agentSocket))
	e := lastEnding(m.Dir)
	if written != nil {
		e = process.Ending{Reason: "QEMU ended, and how is not known", Died: true}
	}
	st.StoppedBecause, st.Died = e.Reason, e.Died
	return st
}

// lastEnding returns how the last QEMU of the machine in dir ended.
func lastEnding(dir string) process.Ending {
	_, err := os.Lstat(filepath.Join(dir, switchedOffFile))
	return process.LastEnding(dir, err == nil)
}

func notAnswering(m vm.Machine, pid int, err error) error {
	return &vm.Error{
		Code: vm.CodeOpen,
		Message: fmt.Sprintf("QEMU, process %d, does not answer at %s; continue it if it is stopped (kill -CONT %d), or destroy the machine",
			pid, filepath.Join(m.Dir, qmpSocket), pid),
		Err: err,
	}
}

// liveState is what QEMU reports about a running machine.
type liveState struct {
	power     vm.Power
	cpus      int
	memory    int  // MiB
	agentOpen bool // a program in the guest has the agent's port open

	diskFull   bool   // the guest is stopped because the host's disk is full
	unreadable string // the first disk of which a read failed, such as "disk0", or ""
}

// ask fills in the state.
func (l *liveState) ask(q *qmp.Monitor) error {
	var (
		status struct{ Status string }
		cpus   []struct{}
		memory struct {
			Base int64 `json:"base-memory"`
		}
		chardevs []struct {
			Label string
			Open  bool `json:"frontend-open"`
		}
		disks []struct {
			Node  string `json:"node-name"`
			Stats struct {
				FailedReads int64 `json:"failed_rd_operations"`
			}
		}
	)
	if err := q.AskAll(
		qmp.Question{Command: "query-cpus-fast", Out: &cpus},
		qmp.Question{Command: "query-memory-size-summary", Out: &memory},
		qmp.Question{Command: "query-chardev", Out: &chardevs},
		qmp.Question{Command: "query-blockstats", Out: &disks},
		qmp.Question{Command: "query-status", Out: &status},
	); err != nil {
		return err
	}
	l.cpus, l.memory, l.power = len(cpus), int(memory.Base>>20), powerOf(status.Status)
	l.diskFull = status.Status == "io-error"
	for _, d := range disks {
		if d.Stats.FailedReads > 0 && l.unreadable == "" {
			l.unreadable = d.Node
		}
	}
	for _, c := range chardevs {
		l.agentOpen = l.agentOpen || c.Label == agentSocket && c.Open
	}
	return nil
}

// diskFault returns what the guest's disks have met, or nil. QEMU reports a failed
// read to the guest. It stops a guest only if there is no space for a write.
func diskFault(clone cloneConfig, live liveState) *vm.Error {
	if live.diskFull {
		return &vm.Error{Code: vm.CodeDiskFull, Message: "the disk that holds the machines is full, so that the guest was stopped at a write; delete machines or images, or make room"}
	}
	for i, d := range clone.Disks {
		if live.unreadable == fmt.Sprintf("disk%d", i) {
			return &vm.Error{Code: vm.CodeImageInvalid, Message: fmt.Sprintf(
				"the guest could not read its disk %s (%s): the file, or the host's disk, is damaged; check the machine on its host, pack it again, and remove the image here",
				d.Slot(), filepath.Base(d.Backing[0]),
			)}
		}
	}
	return nil
}

// powerOf translates QEMU's RunState.
func powerOf(state string) vm.Power {
	switch state {
	case "running":
		return vm.PoweredOn
	case "prelaunch", "inmigrate", "restore-vm":
		return vm.PoweringOn
	case "shutdown":
		return vm.PoweredOff
	case "suspended":
		return vm.Suspended
	case "io-error", "internal-error", "guest-panicked":
		return vm.Blocked
	default: // paused, debug, watchdog, save-vm
		return vm.Paused
	}
}

// fillGuest fills in the state of the guest: its agent and its addresses.
func (d *Driver) fillGuest(ctx context.Context, m vm.Machine, pid int, live liveState, st *vm.Status) error {
	st.Tools = vm.ToolsUnknown
	var interfaces []qmp.Interface
	if live.agentOpen && live.power == vm.PoweredOn {
		st.Tools = vm.ToolsNotRunning
		if answer, err := d.agents.Interfaces(ctx, filepath.Join(m.Dir, agentSocket), pid); err == nil {
			interfaces, st.Tools, st.Up = answer, vm.ToolsRunning, true
		}
	}
	st.Addresses = texts(allAddresses(interfaces))
	if live.power != vm.PoweredOn {
		return nil
	}
	attached := readAttachments(m.Dir)
	if attached.Inner != nil {
		fillOuter(attached.attachment, st)
		st.Up = true
		return nil
	}
	for i := range st.NICs {
		if err := fillAddress(d, m, pid, attached.of(i), cardAddresses(interfaces, st.NICs[i].MACAddress), st, i); err != nil {
			return err
		}
	}
	if len(interfaces) == 0 {
		for _, n := range st.NICs {
			if n.IPAddress != "" && attached.Tap != "" {
				st.Addresses = append(st.Addresses, n.IPAddress)
			}
		}
	}
	return nil
}

// fillAddress fills in the address of the NIC with index i, which is attached to a. reported are the addresses that the
// guest's agent reports for it. The machine's address is that of the first NIC that has one on a bridge or with
// forwarded ports.
func fillAddress(d *Driver, m vm.Machine, pid int, a attachment, reported []netip.Addr, st *vm.Status, i int) error {
	n := &st.NICs[i]
	switch {
	case a.Tap != "":
		ip, err := d.networks.address(macOf(m.ID, i), n.NetworkType, reported)
		if err != nil || !ip.IsValid() {
			return err
		}
		n.IPAddress, st.Up = ip.String(), true
		st.IP = cmp.Or(st.IP, n.IPAddress)
	case i == 0:
		st.IP, st.Forwards = "127.0.0.1", a.Forwards
		n.IPAddress = st.IP
		st.Up = st.Up || len(a.Forwards) > 0 && d.readiness.Ready(m.Dir, pid, a.Forwards[0].Host)
	case len(reported) > 0:
		n.IPAddress = reported[0].String()
	}
	return nil
}

// fillOuter fills in the addresses of a guest that knows itself by another one.
func fillOuter(a attachment, st *vm.Status) {
	st.IP = a.Address.String()
	st.NICs[0].IPAddress = st.IP
	inner := a.Inner.Address.String()
	for i, address := range st.Addresses {
		if address == inner {
			st.Addresses[i] = st.IP
		}
	}
	if len(st.Addresses) == 0 {
		st.Addresses = []string{st.IP}
	}
}

// withMonitor calls f with the monitor of the machine in dir.
func (d *Driver) withMonitor(ctx context.Context, dir string, f func(*qmp.Monitor) error) error {
	return d.monitors.WithMonitor(ctx, filepath.Join(dir, qmpSocket), f)
}

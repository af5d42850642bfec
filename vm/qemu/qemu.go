// Package qemu runs machines on hosts without VMware: it boots the same .vmx
// and .vmdk images on QEMU.
//
// A clone is one qcow2 overlay per disk over the read-only image. A running
// machine is a QEMU process that is not the daemon's child: it outlives the
// daemon, and the next daemon finds it by the lock that it holds on its pid
// file. Everything the package knows about a machine is in Machine.Dir:
//
//	machine.json   the hardware; written last, so its presence means a complete clone
//	link.json      tap or forwarded ports of the last start
//	disk0.qcow2    what the guest wrote; one file per disk
//	efivars.fd     EFI's variables, if the image has EFI firmware
//	tpm            state of the TPM, if the machine has one
//	tpm.pid        locked by the TPM's program, swtpm, as long as it lives; tpm.log has its standard error
//	trimmer.pid    locked by the program that bounds serial.log while no daemon runs; trimmer.log has its standard error
//	pid            locked by QEMU as long as it lives
//	qmp, qga       sockets: QEMU's monitor and the guest's agent
//	exit           locked while a shell waits for QEMU to end; then its exit status
//	suspended      exists while a client has the machine suspended
//	switched-off   exists once a client switched the machine off
//	frozenN.qcow2  below the overlay of disk N, if the machine started from memory
//	events         socket of a second monitor, while the machine runs from memory
//	serial.log     what the guest wrote to its first serial port; everything but its end is a hole
//	qemu.log       QEMU's standard error since the last start; likewise
package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/qemu/cgroup"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/keyedmutex"
	"osx-builder/vm/qemu/network"
	"osx-builder/vm/qemu/qmp"
	"osx-builder/vm/qemu/readiness"
)

// Options configures a [Driver].
type Options struct {
	Dir            string        // absolute path of the data folder; the driver owns Dir/net
	MachinesDir    string        // absolute path of the folder that holds each Machine.Dir, by machine id
	Forward        []int         // guest ports to forward besides 22, if machines are on the user network
	Network        string        // "bridge", "user", or "auto" (or ""): bridge if it is available
	Bridge         string        // the host's bridge for bridged machines; "": there is none
	NATSubnet      string        // of the nat network's bridge, such as 10.20.30.0/24; "": a free one is chosen
	Isolate        bool          // machines on managed bridges do not reach each other
	Gold           string        // absolute path of the folder with gold images; the driver owns the folder "prepared" beside it; "": disks are not prepared
	DiskReserve    int64         // bytes of the disk that prepared disks leave to the host
	QEMU           string        // name or path of QEMU; "" is qemu-system-x86_64
	TemplateMemory int64         // bytes of the host's memory that templates may take together; 0: an eighth of it
	TemplateAge    time.Duration // at which a template is made again; 0: an hour, or 24 hours for guests with an agent
	Log            *slog.Logger  // nil: nothing is logged
}

// Driver is the [vm.Driver] for QEMU. Its methods may be called concurrently.
type Driver struct {
	log         *slog.Logger
	machinesDir string // folder that holds each Machine.Dir
	programs    programs
	networks    networks
	stopTasks   func() // stops the background tasks and waits for them

	prepared *disk.Prepared
	users    *users
	groups   *cgroup.Groups

	monitors  qmp.Client
	queries   stateQueries // uses monitors
	agents    qmp.Agents
	readiness *readiness.Prober // uses queries

	starting taskCounts
	changing keyedmutex.Mutex // by Machine.Dir; held by the calls that change a machine
	memory   *memoryStarts
	gold     string // Options.Gold
}

var (
	_ vm.Driver        = (*Driver)(nil)
	_ vm.DiskGrower    = (*Driver)(nil)
	_ vm.Consoler      = (*Driver)(nil)
	_ vm.Screenshotter = (*Driver)(nil)
	_ vm.Powerer       = (*Driver)(nil)
)

const (
	// maxSocketPath is the longest path of a Unix socket that all systems
	// accept: 104 bytes on macOS, 108 on Linux, with a final zero.
	maxSocketPath = 103

	// idLength is the length of a UUID.
	idLength = 36
)

// Open returns a driver. It neither starts nor changes any machine. It succeeds
// without QEMU, which [Driver.Ready] reports. It fails if Options are impossible:
// if the machines' folder is too deep for the sockets in it, or if Network is
// "bridge" and the host cannot have one.
func Open(o Options) (*Driver, error) {
	longest := maxSocketPath - len(filepath.Join("/", qmpSocket)) - idLength - len("/")
	if len(o.MachinesDir) > longest {
		return nil, fmt.Errorf("the machines' folder %s has a path of %d bytes; the sockets in it allow %d; choose a shorter path with -data",
			o.MachinesDir, len(o.MachinesDir), longest)
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	manager, err := openNetworks(o, log)
	if err != nil {
		return nil, err
	}
	backends, err := chooseBackends(o, manager)
	if err != nil {
		return nil, err
	}
	prepared, err := disk.OpenPrepared(o.Gold, o.DiskReserve, log)
	if err != nil {
		return nil, err
	}
	users, err := openUsers(o.MachinesDir)
	if err != nil {
		return nil, err
	}
	d := &Driver{
		log:         log,
		machinesDir: o.MachinesDir,
		programs:    newPrograms(cmp.Or(o.QEMU, defaultBinary)),
		networks:    networks{manager, backends, log},
		prepared:    prepared,
		users:       users,
		groups:      cgroup.Open(),
		gold:        o.Gold,
	}
	if d.memory, err = openMemoryStarts(d, o); err != nil {
		return nil, err
	}
	d.queries.monitors = &d.monitors
	d.readiness = readiness.New(func(ctx context.Context, dir string, pid int) bool {
		live, err := d.queries.read(ctx, dir, pid)
		return err == nil && live.power == vm.PoweredOn
	})
	d.networks.logAvailable()
	trimmer := logTrimmer{d.machinesDir, log}
	deaths := deathLog{dir: d.machinesDir, starting: &d.starting, changing: &d.changing, log: log, logged: map[string]time.Time{}}
	tasks := []func(context.Context){trimmer.run, deaths.run, d.memory.followAll, d.memory.sweepPeriodically}
	if backends.hasBridge() {
		tasks = append(tasks, d.networks.repairPeriodically)
	}
	d.stopTasks = startTasks(tasks...)
	return d, nil
}

// Close stops the background tasks and removes bridges without machines.
// Machines keep running.
func (d *Driver) Close() error {
	d.stopTasks()
	d.readiness.Close()
	err := errors.Join(d.memory.close(), d.networks.manager.Close())
	d.agents.Close()
	return err
}

// Limits returns the processors that QEMU's pc can have, the host's memory, and
// the addresses of managed networks.
func (d *Driver) Limits() vm.Limits {
	limits := vm.Limits{CPUs: 255, Memory: hostMemory(), HostCPUs: runtime.NumCPU(), Templates: d.memory.taken(), Addresses: map[vm.NetworkType]int{}}
	for _, t := range []vm.NetworkType{vm.NAT, vm.HostOnly} {
		if _, managed := d.networks.backends[t].(bridgeBackend); managed {
			limits.Addresses[t] = d.networks.manager.Addresses(network.Kind(t))
		}
	}
	return limits
}

// Ready looks for QEMU at every call, so that it may be installed while the
// daemon runs.
func (d *Driver) Ready(ctx context.Context) error {
	_, err := d.programs.x86.find(ctx)
	return err
}

// Describe returns what machines run on: QEMU's "version" and "path", or under
// "missing" why it cannot be used; the "acceleration" and, under "network", the
// backend of nat machines, each with its reason; under "confinement" what keeps
// a guest that breaks into QEMU from the host, and what is missing for it; and
// under "firewall" which settings of the host may block machines.
func (d *Driver) Describe(ctx context.Context) map[string]string {
	facts := map[string]string{}
	var missing *vm.Error
	switch qemu, err := d.programs.x86.find(ctx); {
	case errors.As(err, &missing):
		facts["missing"] = missing.Message
	case err != nil:
		facts["missing"] = err.Error()
	default:
		facts["version"], facts["path"] = qemu.version, qemu.path
	}
	accel := probeAcceleration(archX86)
	facts["acceleration"] = accel.String()
	nat := d.networks.backends[vm.NAT]
	facts["network"] = nat.name()
	if user, is := nat.(*userBackend); is {
		facts["network"] += ": " + user.why
	}
	facts["confinement"] = confinementOf(nat, d.groups)
	switch warnings, err := d.networks.firewallWarnings(); {
	case err != nil:
		facts["firewall"] = err.Error()
	case len(warnings) > 0:
		facts["firewall"] = strings.Join(warnings, "; ")
	}
	return facts
}

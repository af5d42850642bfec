package vm

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"osx-builder/callback"
	"osx-builder/image"
)

// maxAttempts is how often the daemon may end during one creation or destruction
// before it does not try again.
const maxAttempts = 3

// Options are the settings of a Manager. The fields down to Callbacks are
// required.
type Options struct {
	Dir        string // the records and the machines' folders, with the folder pulls beside it; created if absent
	Driver     Driver
	Hypervisor string // the driver's name, as the API shows it
	Images     *image.Cache
	Callbacks  *callback.Sender

	Creations     int           // unfinished creations at once; 0 means 16
	VMs           int           // machines in all; 0 means any number
	Tombstones    int           // destroyed machines with callbacks to send; 0 means 1,000
	MemoryReserve int           // MiB of the host's memory that machines do not get
	PerOwner      OwnerLimits   // of the machines of one owner
	Start         StartMode     // of machines whose request does not say; "" means that they boot
	MaxDisk       int64         // bytes of a machine's first disk, if its request gives it a size; 0 means 64 TiB
	Pools         []PoolOptions // of machines that are kept prepared
	MaxLifetime   time.Duration // of a machine, from its creation; 0 means that it lives until it is destroyed
	Hosts         *Hosts        // where URLs may lead; nil means anywhere
	Hooks         Hooks
	Log           *slog.Logger
}

// Manager keeps the machines. Its methods are the verbs of the API, and may be
// called by many goroutines at once. Everything else is in its parts, each with
// its own state and lock.
type Manager struct {
	opts  Options
	store *store
	tasks *tasks

	jobs       *jobs
	power      *powerOperations
	keys       *idempotencyKeys
	names      *nameIndex
	capacity   *capacity
	pools      *pools
	timers     *expiryTimers
	events     *eventLog
	reader     *reader
	counter    *stateCounter
	callbacks  *callbacks
	tombstones *tombstones
	warnings   *imageWarnings
	images     *Images
	probe      *hostProbe
	followers  chan struct{} // has a value for each follower of a console
}

// Open takes over the machines that an earlier Manager left in o.Dir: it gives
// every unsettled record a job again, and removes what has no record. A record
// that cannot be read is logged, and listed with its error. If it is corrupt it
// is set aside; if it is of a newer version it is left as it is. Only one
// Manager may be open on a folder.
func Open(o Options) (*Manager, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating the machines' folder: %w", err)
	}
	o.Creations = cmp.Or(o.Creations, 16)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	o.Hooks = o.Hooks.withDefaults()
	m := newManager(o)
	for _, one := range o.Pools {
		if err := m.pools.add(one); err != nil {
			m.Close()
			return nil, err
		}
	}
	if err := m.recover(); err != nil {
		m.Close()
		return nil, err
	}
	if len(o.Pools) > 0 {
		m.tasks.run(func() { m.pools.run(m.tasks.ctx) })
	}
	return m, nil
}

// newManager puts the parts together.
func newManager(o Options) *Manager {
	m := &Manager{opts: o, store: &store{dir: o.Dir}, tasks: newTasks()}
	m.events = newEventLog(m.tasks)
	m.jobs = &jobs{tasks: m.tasks, log: o.Log, events: m.events, hooks: o.Hooks, byID: make(map[string]*job)}
	m.keys = &idempotencyKeys{byKey: make(map[ownedKey]*reservation)}
	m.names = newNameIndex()
	m.capacity = &capacity{
		driver: o.Driver, creations: o.Creations, machines: o.VMs, reserve: o.MemoryReserve, perOwner: o.PerOwner,
		promised: make(map[string]int), network: map[string]NetworkType{}, owner: make(map[string]string),
		pooled: make(map[string]bool),
	}
	m.pools = newPools(o, m.store, m.capacity)
	m.timers = &expiryTimers{
		tasks: m.tasks, store: m.store, log: o.Log, byID: make(map[string]*time.Timer),
		destroy: m.destroyAndWait, missing: func(id string) { m.unregister(id, ownedKey{}) },
	}
	inspections, listings := newInspections(o.Driver, o.Log, m.tasks), newListings(o.Driver, o.Log, m.tasks)
	m.reader = &reader{store: m.store, driver: o.Driver, hypervisor: o.Hypervisor, jobs: m.jobs, inspections: inspections, listings: listings}
	m.power = &powerOperations{
		tasks: m.tasks, jobs: m.jobs, store: m.store, driver: o.Driver, reader: m.reader, events: m.events, log: o.Log,
		byID: make(map[string]*powerOperation),
	}
	m.events.watch = (&powerWatch{store: m.store, inspections: inspections, events: m.events, listings: listings, driver: o.Driver}).run
	m.counter = &stateCounter{store: m.store, tasks: m.tasks, reader: m.reader}
	m.callbacks = &callbacks{sender: o.Callbacks, store: m.store, reader: m.reader, hooks: o.Hooks, log: o.Log}
	m.tombstones = &tombstones{
		tasks: m.tasks, store: m.store, callbacks: m.callbacks, hooks: o.Hooks, log: o.Log, most: cmp.Or(o.Tombstones, maxTombstones),
	}
	m.warnings = &imageWarnings{log: o.Log}
	m.images = &Images{
		cache: o.Images, kept: &keptImages{driver: o.Driver, tasks: m.tasks, log: o.Log},
		driver: o.Driver, pools: m.pools, hosts: o.Hosts, tasks: m.tasks, log: o.Log, dir: filepath.Join(filepath.Dir(o.Dir), "pulls"),
		records: make(map[image.Sum]*imageRecord), pulls: make(map[image.Sum]*pull),
	}
	m.probe = &hostProbe{tasks: m.tasks, driver: o.Driver, hypervisor: o.Hypervisor}
	m.followers = make(chan struct{}, followersAtOnce)
	return m
}

// Close stops every job at its next step and waits for all of them. The machines
// keep running, and the next Open continues where the jobs stopped.
func (m *Manager) Close() {
	m.timers.close()
	m.tombstones.close()
	m.tasks.close(errStopping)
}

// unregister removes from the parts a machine that does not exist any more.
func (m *Manager) unregister(id string, key ownedKey) {
	m.capacity.remove(id)
	m.names.remove(id)
	m.timers.remove(id)
	m.keys.freeMachine(key, id)
	m.opts.Images.Release(id)
}

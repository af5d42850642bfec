package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"osx-builder/callback"
	"osx-builder/image"
)

// The Manager's bounds.
const (
	// maxAttempts is how often a creation may take the daemon down with it.
	maxAttempts = 3

	// inspectTimeout bounds one look at the hypervisor, so that a hung
	// machine costs its reader an answer and not a connection.
	inspectTimeout = 10 * time.Second

	// inspectsAtOnce bounds how many machines are asked side by side for those
	// who read many, without those that are slow to answer.
	inspectsAtOnce = 16

	// readsAtOnce bounds how many records are read side by side: each occupies
	// a thread while the disk is at work.
	readsAtOnce = 16
)

// Options is what a Manager is built from. The fields down to Callbacks are
// required.
type Options struct {
	Dir        string // the records and the machines' folders; made if absent
	Driver     Driver
	Hypervisor string // the driver's name, as the API shows it
	Images     *image.Cache
	Callbacks  *callback.Sender

	Creations     int           // unfinished creations at once; 0 means 16
	VMs           int           // machines in all; 0 means any number
	MemoryReserve int           // MiB of the host's memory that are not promised to machines
	MaxLifetime   time.Duration // of a machine, from its creation; 0 means that it lives until it is destroyed
	Hosts         *Hosts        // where URLs may lead; nil means anywhere
	Hooks         Hooks         // what to call for whoever counts
	Log           *slog.Logger
}

// Manager keeps the machines. Its methods may be called at once from many
// goroutines.
type Manager struct {
	Options
	store *store

	mu       sync.Mutex // guards what follows; never held across I/O
	jobs     map[string]*job
	acts     map[string]*act // none where a job is at work, but one that only sends callbacks
	keys     map[string]*claim
	promised map[string]int         // MiB of memory, by machine; 0 where its making failed
	timers   map[string]*time.Timer // of the machines that have an end
	creating int
	stopping bool
	count    *census // under way, or nil

	asking      singleflight.Group // of what Health asks the driver
	inspections *inspections

	feed    *feed
	unwatch context.CancelFunc // ends the watch for power states; guarded by feed.mu

	followers chan struct{} // a place for each who follows a console

	ctx  context.Context // of all jobs
	stop context.CancelCauseFunc
	wg   sync.WaitGroup
}

// Open takes over the machines that an earlier Manager left in o.Dir: it gives
// every unsettled record its job again, and sweeps what has no record. A
// record that cannot be read is logged and listed with its error; a corrupt
// one is set aside, one of a newer daemon left as it is.
// Only one Manager may be open on a folder.
func Open(o Options) (*Manager, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the machines' folder: %w", err)
	}
	o.Creations = cmp.Or(o.Creations, 16)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	o.Hooks = o.Hooks.orNothing()
	m := &Manager{
		Options: o, store: &store{dir: o.Dir},
		jobs: make(map[string]*job), acts: make(map[string]*act), keys: make(map[string]*claim),
		promised: make(map[string]int), timers: make(map[string]*time.Timer), feed: newFeed(),
		followers: make(chan struct{}, followersAtOnce),
	}
	m.ctx, m.stop = context.WithCancelCause(context.Background())
	m.inspections = newInspections(m)
	if err := m.recover(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// Close stops every job at its next step and waits for them. The machines keep
// running, and the next Open goes on where the jobs stopped.
func (m *Manager) Close() {
	m.mu.Lock()
	m.stopping = true
	for _, t := range m.timers {
		t.Stop()
	}
	m.mu.Unlock()
	m.stop(errStopping)
	m.wg.Wait()
}

// begin counts the caller among those that Close waits for; false means that
// the Manager stops. m.wg.Done ends what it begins.
func (m *Manager) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping {
		return false
	}
	m.wg.Add(1)
	return true
}

// Create accepts a request: when it returns, the record is on disk and the job
// is at work. A key that is not empty makes it idempotent: the same key with
// the same request answers the same machine for as long as that exists.
func (m *Manager) Create(ctx context.Context, q Request, key string) (VM, error) {
	s, err := m.check(ctx, q)
	if err != nil {
		return VM{}, err
	}
	if key == "" {
		return m.accept(ctx, s, key)
	}
	for {
		c, mine := m.claim(key)
		if mine {
			v, err := m.accept(ctx, s, key)
			m.settleClaim(key, c, v.ID)
			return v, err
		}
		select {
		case <-c.done:
		case <-ctx.Done():
			return VM{}, ctx.Err()
		}
		v, found, err := m.repeated(ctx, c.id, s)
		if found || err != nil {
			return v, err
		}
		m.freeKey(key, c)
	}
}

// check makes a spec of a request that this host can fulfil.
func (m *Manager) check(ctx context.Context, q Request) (spec, error) {
	s, err := normalize(q, m.limits())
	if err != nil {
		return s, err
	}
	if err := m.Hosts.check(s); err != nil {
		return s, err
	}
	d, err := m.lifetime(q.ExpiresIn)
	if err != nil {
		return s, err
	}
	s.ExpiresIn = int(d / time.Second)
	if err := m.Driver.Network(s.Network); err != nil {
		return s, err
	}
	return s, m.Driver.Ready(ctx)
}

func (m *Manager) accept(ctx context.Context, s spec, key string) (VM, error) {
	src, err := s.source()
	if err != nil {
		return VM{}, err
	}
	now := time.Now().UTC()
	r := newRecord(s, key, now)
	r.RequestID = RequestID(ctx)
	r.Expiry = newExpiry(cmp.Or(time.Duration(s.ExpiresIn)*time.Second, m.MaxLifetime), now)
	if err := m.admit(r); err != nil {
		return VM{}, err
	}
	m.Images.Hold(r.ID, src.Sum) // before the record, so that no moment is without one of them
	if err := m.store.write(r); err != nil {
		m.release()
		m.Images.Release(r.ID)
		m.unlist(r.ID, "")
		return VM{}, storeError(r.ID, errors.Join(err, m.store.remove(r.ID)))
	}
	v := r.resource(m.Hypervisor, Status{})
	m.arm(r.ID, r.Expiry)
	m.feed.enter(r.ID, Accepted, nil)
	if _, ok := m.start(r.ID, false, func(ctx context.Context, j *job) { m.create(ctx, j, r) }); !ok {
		m.release() // stopping: the next Open takes the record over
	}
	return v, nil
}

// Get reads a machine's record and its live state.
func (m *Manager) Get(ctx context.Context, id string) (VM, error) {
	j := m.job(id)
	r, err := m.record(id)
	if err != nil {
		return VM{}, err
	}
	return m.describe(ctx, r, j)
}

// record reads a machine's record; tombstones are not seen.
func (m *Manager) record(id string) (*record, error) {
	if !ValidID(id) {
		return nil, notFound(id)
	}
	r, err := m.store.read(id)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && r.Gone) {
		return nil, notFound(id)
	}
	return r, err
}

// describe reads a machine's live state and joins it with the record and the job
// at work. The job is the one of before the record was read: a later one could
// have ended already, and a record that is not settled would then seem to have
// none.
func (m *Manager) describe(ctx context.Context, r *record, j *job) (VM, error) {
	st, err := m.inspect(ctx, r)
	return m.join(r, j, st, err)
}

func (m *Manager) join(r *record, j *job, st Status, err error) (VM, error) {
	v := r.resource(m.Hypervisor, st)
	if j != nil && r.Phase == Accepted {
		v.Phase, v.Progress = j.seen()
	}
	if err == nil || r.Phase == Accepted || r.Phase == Destroying {
		return v, nil // what its job is at changes under the reader's eyes
	}
	v.Error = unreadable(r.ID, err)
	return v, v.Error
}

// unreadable is the error for a machine whose hypervisor does not tell its
// state.
func unreadable(id string, err error) *Error {
	var known *Error
	if errors.As(err, &known) && known.Code == CodeOpen {
		return known
	}
	return &Error{Code: CodeOpen, Message: fmt.Sprintf("the state of machine %s cannot be read: %v", id, err), Err: err}
}

// Wait is Get, but holds until the machine is ready, failed or being
// destroyed, or until d is over.
func (m *Manager) Wait(ctx context.Context, id string, d time.Duration) (VM, error) {
	if d <= 0 {
		return m.Get(ctx, id)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for waiting := true; waiting; {
		j := m.job(id)
		r, err := m.record(id)
		if err != nil || j == nil || r.settled() {
			break
		}
		select {
		case <-j.settled:
		case <-timer.C:
			waiting = false
		case <-m.ctx.Done():
			waiting = false
		case <-ctx.Done():
			return VM{}, ctx.Err()
		}
	}
	return m.Get(ctx, id)
}

// Filter chooses machines for List; an empty field chooses all.
type Filter struct {
	Phase  Phase
	Status Power
}

// List reads all machines, oldest first. One that cannot be read, or not within
// listTimeout, is among them with its Error set.
func (m *Manager) List(ctx context.Context, f Filter) ([]VM, error) {
	ids, _, err := m.store.ids()
	if err != nil {
		return nil, err
	}
	seen := make([]*VM, len(ids))
	m.entries(ctx, ids, func(i int, v *VM) { seen[i] = v })
	list := make([]VM, 0, len(ids))
	for _, v := range seen {
		if v != nil && (f.Phase == "" || v.Phase == f.Phase) && (f.Status == "" || v.Status == f.Status) {
			list = append(list, *v)
		}
	}
	slices.SortFunc(list, func(a, b VM) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return list, ctx.Err()
}

// entries reads machines side by side and calls each, also side by side, with
// the index of a machine among ids and its entry, nil if the machine is gone by
// now. It takes little more than listTimeout, however many machines are slow.
func (m *Manager) entries(ctx context.Context, ids []string, each func(i int, v *VM)) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	var reads, looks errgroup.Group
	reads.SetLimit(readsAtOnce)
	for i, id := range ids {
		reads.Go(func() error {
			j := m.job(id)
			r, err := m.record(id)
			if err != nil {
				each(i, m.entryWithout(id, err))
				return nil
			}
			looks.Go(func() error {
				st, err := m.inspections.read(ctx, m.machine(r))
				v, _ := m.join(r, j, st, err) // v.Error has it
				each(i, &v)
				return nil
			})
			return nil
		})
	}
	_ = reads.Wait() // entries carry their own errors
	_ = looks.Wait()
}

// entryWithout returns a machine without a record as List shows it, nil if it is
// gone by now.
func (m *Manager) entryWithout(id string, err error) *VM {
	known := clientError(err)
	if known.Code == CodeNotFound {
		return nil
	}
	return &VM{ID: id, Error: known, Hypervisor: m.Hypervisor, ToolsStatus: ToolsUnknown}
}

// Destroy takes a machine away and returns when nothing of it is left but,
// where a callback is owed, a record that nobody sees. A creation under way is
// cancelled first. It goes on when ctx ends, and after a restart of the
// daemon. Destroying at once from two sides ends in nil or CodeNotFound.
func (m *Manager) Destroy(ctx context.Context, id string) error {
	if !ValidID(id) {
		return notFound(id)
	}
	return m.takeAway(ctx, id, nil)
}

// machine is the driver's view of a record, but for the annotation of a new
// machine.
func (m *Manager) machine(r *record) Machine {
	return Machine{
		ID: r.ID, Dir: filepath.Join(m.Dir, r.ID),
		CPUs: r.Spec.CPUs, Memory: r.Spec.Memory, Network: r.Spec.Network, Forward: r.Spec.Forward, LaunchGUI: r.Spec.LaunchGUI,
	}
}

func notFound(id string) *Error {
	return &Error{Code: CodeNotFound, Message: fmt.Sprintf("The requested virtual machine ID was not found: %.64q", id)}
}

func shuttingDown() *Error {
	return &Error{Code: CodeShuttingDown, Message: "the daemon is stopping; try again when it is back"}
}

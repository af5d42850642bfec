package vm

import (
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"osx-builder/image"
)

// PoolOptions says which machines are kept prepared up to the last step, so that
// a creation that matches them only lets one run.
type PoolOptions struct {
	Checksum string // of the image, as a request has it
	CPUs     int    // virtual processors
	Memory   int    // MiB; what is not a multiple of 4 is rounded up
	Count    int    // of machines that wait, at least 1
}

// PoolsFrom returns the options from the settings of another package.
func PoolsFrom[S ~struct {
	Checksum            string
	CPUs, Memory, Count int
}](settings []S) (all []PoolOptions) {
	for _, s := range settings {
		all = append(all, PoolOptions(s))
	}
	return all
}

// MaxPool is the largest Count of a pool.
const MaxPool = 1000

// Pool is a pool as the API shows it.
type Pool struct {
	Checksum     string `json:"checksum"`
	ChecksumType string `json:"checksum_type"`
	CPUs         int    `json:"cpus"`
	Memory       string `json:"memory"`
	Count        int    `json:"count"`             // of machines that are to wait
	Ready        int    `json:"ready"`             // of machines that wait
	Problem      string `json:"problem,omitempty"` // why there are not more
}

// pools keeps machines ready that are prepared up to the last step. They have
// folders but no records, so that a crash makes them litter, which the next start
// removes. A machine that is handed out gets its record like any other, under the
// id that it has.
type pools struct {
	driver     Driver
	hypervisor string
	images     *image.Cache
	store      *store
	capacity   *capacity
	hooks      Hooks
	log        *slog.Logger

	changing chan struct{} // has a value while machines are prepared or removed
	hints    chan struct{} // has a value once a pool may not be full any more
	checked  time.Time     // when the machines that wait were checked; of the goroutine that refills

	mu   sync.Mutex
	all  []*pool  // fixed once machines are accepted; the pools' fields are guarded by mu
	gone []string // ids of machines that are to be removed; guarded by mu
}

// pool is the machines of one setting.
type pool struct {
	spec    spec // of requests that match, without the fields that prepared leaves out
	sum     image.Sum
	count   int
	ready   []string // ids of machines that wait, the oldest first
	problem string   // why the last attempt to prepare one failed
}

func newPools(o Options, s *store, c *capacity) *pools {
	return &pools{
		driver: o.Driver, hypervisor: o.Hypervisor, images: o.Images, store: s, capacity: c, hooks: o.Hooks, log: o.Log,
		changing: make(chan struct{}, 1), hints: make(chan struct{}, 1),
	}
}

// add checks a setting against the host and adds its pool.
func (p *pools) add(o PoolOptions) error {
	problems := problems{}
	one := &pool{count: o.Count}
	limits := p.capacity.limits()
	s := spec{CPUs: o.CPUs, Network: NAT, Start: StartMemory}
	if s.CPUs < 1 || s.CPUs > limits.CPUs {
		problems.add(fieldError("cpus", fmt.Sprint(s.CPUs), fmt.Sprintf("from 1 to %d on this host", limits.CPUs)))
	}
	if o.Count < 1 || o.Count > MaxPool {
		problems.add(fieldError("count", fmt.Sprint(o.Count), fmt.Sprintf("from 1 to %d", MaxPool)))
	}
	var err error
	s.Memory, _, err = parseMemory(fmt.Sprintf("%dmib", o.Memory), limits.Memory)
	problems.add(err)
	if one.sum, err = image.ReadSum("", o.Checksum); err != nil {
		problems.add(fieldError("checksum", fmt.Sprintf("%q", o.Checksum), err.Error()))
	}
	if err := InvalidFields(problems.list); err != nil {
		return fmt.Errorf("-pool %s: %w", o.Checksum, err)
	}
	s.Image = Image{Checksum: one.sum.Hex, ChecksumType: one.sum.Type}
	one.spec = s
	if slices.ContainsFunc(p.all, func(other *pool) bool { return reflect.DeepEqual(other.spec, s) }) {
		return fmt.Errorf("-pool %s: two pools have machines of this image with cpus=%d memory=%dmib; add up their counts", o.Checksum, s.CPUs, s.Memory)
	}
	p.all = append(p.all, one)
	return nil
}

// prepared returns the spec without the fields that do not change how a machine
// is prepared. A request whose other fields are those of a pool gets one of its
// machines, so a field that is new needs no change here to be safe.
func (s spec) prepared() spec {
	s.Image.URL, s.MemoryText, s.CallbackURL = "", "", ""
	s.ToolsSeconds, s.ExpiresIn, s.ReadySeconds = 0, 0, 0
	s.Labels, s.ReadyWhen, s.Forward = nil, nil, nil
	return s
}

// take returns the id of a machine that was prepared for such a request, or "".
func (p *pools) take(s spec) (id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.find(s)
	if one == nil {
		return ""
	}
	p.hooks.PoolUsed(len(one.ready) > 0)
	if len(one.ready) == 0 {
		return ""
	}
	id, one.ready = one.ready[0], one.ready[1:]
	p.hint()
	return id
}

// find returns the pool for such a request, or nil. It needs mu held.
func (p *pools) find(s spec) *pool {
	s = s.prepared()
	for _, one := range p.all {
		if reflect.DeepEqual(one.spec, s) {
			return one
		}
	}
	return nil
}

// giveBack returns a machine that take returned and that did not become one. It
// is a no-op without an id.
func (p *pools) giveBack(id string, s spec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.find(s); one != nil && id != "" {
		one.ready = append([]string{id}, one.ready...)
	}
}

// hint makes the pools be refilled soon.
func (p *pools) hint() {
	select {
	case p.hints <- struct{}{}:
	default: // there is a hint already
	}
}

// waiting returns how many machines of an image wait.
func (p *pools) waiting(sum image.Sum) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.all {
		if one.sum == sum {
			n += len(one.ready)
		}
	}
	return n
}

// list returns the pools in the order of the settings.
func (p *pools) list() (all []Pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.all {
		all = append(all, Pool{
			Checksum: one.sum.Hex, ChecksumType: one.sum.Type, CPUs: one.spec.CPUs, Memory: memoryText(one.spec.Memory),
			Count: one.count, Ready: len(one.ready), Problem: one.problem,
		})
	}
	return all
}

package vm

import (
	"cmp"
	"fmt"
	"sync"
)

// capacity bounds the machines: how many are created at once, how many exist,
// and how much memory they have together.
type capacity struct {
	driver    Driver
	creations int // at once
	machines  int // 0 means any number
	reserve   int // MiB of the host's memory that machines do not get
	perOwner  OwnerLimits

	mu       sync.Mutex             // guards what follows
	owner    map[string]string      // of each machine that exists and has one
	promised map[string]int         // MiB of memory of each machine that exists; 0 if its creation failed
	network  map[string]NetworkType // of each machine that exists
	pooled   map[string]bool        // the machines of pools
	creating int
}

// admit counts a machine under creation, and the memory and the network's address
// that are promised to it for as long as it exists. It fails if that is more than
// the limits allow.
func (c *capacity) admit(id, owner string, memory int, network NetworkType) error {
	limits := c.limits()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.checkOwner(owner, memory); err != nil {
		return err
	}
	if err := c.busy(); err != nil {
		return err
	}
	if err := c.fits(limits, memory, network); err != nil {
		return err
	}
	c.creating++
	c.add(id, owner, memory, network)
	return nil
}

// add needs mu held.
func (c *capacity) add(id, owner string, memory int, network NetworkType) {
	c.promised[id], c.network[id] = memory, network
	if owner != "" {
		c.owner[id] = owner
	}
}

// prepare counts a machine of a pool, with what is promised to it, as admit does.
func (c *capacity) prepare(id string, memory int, network NetworkType) error {
	limits := c.limits()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fits(limits, memory, network); err != nil {
		return err
	}
	c.add(id, "", memory, network)
	c.pooled[id] = true
	return nil
}

// admitPooled counts a machine of a pool as one under creation.
func (c *capacity) admitPooled(id, owner string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.checkOwner(owner, c.promised[id]); err != nil {
		return err
	}
	if err := c.busy(); err != nil {
		return err
	}
	c.creating++
	c.add(id, owner, c.promised[id], c.network[id])
	delete(c.pooled, id)
	return nil
}

// busy returns an error if no more machines may be created now. It needs mu held.
func (c *capacity) busy() error {
	if c.creating < c.creations {
		return nil
	}
	return &Error{Code: CodeBusy, Message: fmt.Sprintf("%d machines are being created, which is the limit set by -creations; try again later", c.creating)}
}

// fits returns an error if one more machine exceeds the limits. It needs mu held.
func (c *capacity) fits(limits Limits, memory int, network NetworkType) error {
	most := limits.AllMemory
	if c.machines > 0 && len(c.promised) >= c.machines {
		return &Error{Code: CodeNoCapacity, Message: fmt.Sprintf("there are %d machines, which is the limit set by -vms; destroy some and try again%s", len(c.promised), c.inPools())}
	}
	if promised := c.promisedMemory() + limits.Templates; promised+memory > most {
		return &Error{
			Code: CodeNoCapacity,
			Message: fmt.Sprintf("the machine needs %dmib of memory, but %dmib of the %dmib available to machines are promised to others (-memory-reserve keeps %dmib for the host)%s; destroy some machines and try again%s",
				memory, promised, most, c.reserve, ofTemplates(limits.Templates), c.inPools()),
		}
	}
	if addresses, bounded := limits.Addresses[network]; bounded && c.attached(network) >= addresses {
		return &Error{
			Code: CodeNoCapacity,
			Message: fmt.Sprintf("the %s network has addresses for %d machines, and all are taken; destroy some machines and try again, or give the network a larger subnet (-nat-subnet)%s",
				network, addresses, c.inPools()),
		}
	}
	return nil
}

// inPools is the part of a message about machines that no client sees. It needs
// mu held.
func (c *capacity) inPools() string {
	if len(c.pooled) == 0 {
		return ""
	}
	return fmt.Sprintf("; %d of the machines wait in pools (-pool)", len(c.pooled))
}

// ofTemplates says how much memory templates take, and how to free it.
func ofTemplates(mib int) string {
	if mib == 0 {
		return ""
	}
	return fmt.Sprintf(", %dmib of them to templates, which DELETE /templates/KEY frees", mib)
}

// restore counts a machine that an earlier Manager created.
func (c *capacity) restore(id, owner string, memory int, network NetworkType) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(id, owner, memory, network)
}

// attached returns how many machines have this network. It needs mu held.
func (c *capacity) attached(network NetworkType) (n int) {
	for _, each := range c.network {
		if each == network {
			n++
		}
	}
	return n
}

// resume counts a creation that an earlier Manager began.
func (c *capacity) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.creating++
}

// creationEnded uncounts a machine under creation.
func (c *capacity) creationEnded() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.creating--
}

// setMemory notes the memory that a machine has: 0 once its creation failed. It
// counts among the machines all the same.
func (c *capacity) setMemory(id string, mib int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.promised[id] = mib
}

// remove uncounts a machine that does not exist any more.
func (c *capacity) remove(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.promised, id)
	delete(c.network, id)
	delete(c.owner, id)
	delete(c.pooled, id)
}

// counts returns how many machines exist, without those of pools, and how many
// are being created.
func (c *capacity) counts() (machines, creating int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.promised) - len(c.pooled), c.creating
}

// limits returns how large one machine may be, and how much memory all may have
// together.
func (c *capacity) limits() Limits {
	limits := c.driver.Limits()
	limits.AllMemory = max(cmp.Or(limits.AllMemory, limits.Memory)-c.reserve, MinMemory)
	limits.Memory = min(max(limits.Memory-c.reserve, MinMemory), limits.AllMemory)
	return limits
}

// promisedMemory returns the MiB that all machines have. It needs mu held.
func (c *capacity) promisedMemory() (mib int) {
	for _, each := range c.promised {
		mib += each
	}
	return mib
}

// Capacity is how many machines there may be, and how large, as the API shows
// it.
type Capacity struct {
	CPUs      int    `json:"cpus"`   // of one machine
	Memory    string `json:"memory"` // of all machines together
	Promised  string `json:"memory_promised"`
	Creations int    `json:"creations"`       // unfinished ones
	VMs       int    `json:"vms,omitempty"`   // 0 means that memory is the only limit
	Pools     []Pool `json:"pools,omitempty"` // of machines that wait; they count

	// The same for the metrics, and how many creations are under way.
	MemoryMiB   int                   `json:"-"`
	PromisedMiB int                   `json:"-"`
	Creating    int                   `json:"-"`
	PerOwner    OwnerLimits           `json:"-"`
	Owners      map[string]OwnerUsage `json:"-"` // of machines that have an owner
}

// Capacity returns the limits in force, how much memory is promised, and the
// pools.
func (m *Manager) Capacity() Capacity {
	c := m.capacity
	most, pools := c.limits(), m.pools.list()
	c.mu.Lock()
	defer c.mu.Unlock()
	promised := c.promisedMemory() + most.Templates
	owners := make(map[string]OwnerUsage)
	for id, owner := range c.owner {
		u := owners[owner]
		owners[owner] = OwnerUsage{u.VMs + 1, u.MemoryMiB + c.promised[id]}
	}
	return Capacity{
		Pools: pools,
		CPUs:  most.CPUs, Memory: memoryText(most.AllMemory), Promised: memoryText(promised),
		Creations: c.creations, VMs: c.machines,
		MemoryMiB: most.AllMemory, PromisedMiB: promised, Creating: c.creating, PerOwner: c.perOwner, Owners: owners,
	}
}

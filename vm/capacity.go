package vm

import "fmt"

// admit takes a place among the unfinished creations, and the memory that the
// machine is promised for as long as it exists.
func (m *Manager) admit(r *record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping {
		return shuttingDown()
	}
	if m.creating >= m.Creations {
		return &Error{Code: CodeBusy, Message: fmt.Sprintf("%d machines are being created, which is the limit set by -creations; try again in a while", m.creating)}
	}
	if m.VMs > 0 && len(m.promised) >= m.VMs {
		return &Error{Code: CodeNoCapacity, Message: fmt.Sprintf("there are %d machines, which is the limit set by -vms; destroy some and try again", len(m.promised))}
	}
	promised := m.promisedMemory()
	if most := m.limits().Memory; promised+r.Spec.Memory > most {
		return &Error{
			Code: CodeNoCapacity,
			Message: fmt.Sprintf("%dmib of memory are asked for, and %dmib of the %dmib that this host gives to machines are promised to others (-memory-reserve keeps %dmib back); destroy some and try again",
				r.Spec.Memory, promised, most, m.MemoryReserve),
		}
	}
	m.creating++
	m.promised[r.ID] = r.Spec.Memory
	return nil
}

// Capacity is how many machines there may be, and how large, as clients are told.
type Capacity struct {
	CPUs      int    `json:"cpus"`   // of one machine
	Memory    string `json:"memory"` // of all machines together
	Promised  string `json:"memory_promised"`
	Creations int    `json:"creations"`     // unfinished ones
	VMs       int    `json:"vms,omitempty"` // 0 where memory alone is the limit
}

// Capacity tells the limits in force, and how much of the memory is taken.
func (m *Manager) Capacity() Capacity {
	most := m.limits()
	m.mu.Lock()
	defer m.mu.Unlock()
	return Capacity{
		CPUs: most.CPUs, Memory: memoryText(most.Memory), Promised: memoryText(m.promisedMemory()),
		Creations: m.Creations, VMs: m.VMs,
	}
}

// promisedMemory is the MiB that machines have been promised. The caller holds mu.
func (m *Manager) promisedMemory() (mib int) {
	for _, each := range m.promised {
		mib += each
	}
	return mib
}

// limits is how large one machine may be, and how much memory all together.
func (m *Manager) limits() Limits {
	limits := m.Driver.Limits()
	limits.Memory = max(limits.Memory-m.MemoryReserve, MinMemory)
	return limits
}

// release gives the place of a creation back.
func (m *Manager) release() {
	m.mu.Lock()
	m.creating--
	m.mu.Unlock()
}

// promise notes the memory that a machine has: none once its making failed. It
// counts among the machines all the same.
func (m *Manager) promise(id string, mib int) {
	m.mu.Lock()
	m.promised[id] = mib
	m.mu.Unlock()
}

// unlist forgets a machine that is gone, and frees its Idempotency-Key.
func (m *Manager) unlist(id, key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.promised, id)
	if t := m.timers[id]; t != nil {
		t.Stop()
	}
	delete(m.timers, id)
	if c := m.keys[key]; c != nil && c.id == id {
		delete(m.keys, key)
	}
}

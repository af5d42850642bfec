package vm

import "fmt"

// Owners selects machines by their owner. The owner of a machine is the name of the token that created it, or "" if
// that has no name. The zero value selects no machine.
type Owners struct {
	All  bool   // all machines, also those without an owner
	Name string // if All is false: the machines of this owner; "" for none
}

// include reports whether machines of the owner are selected.
func (o Owners) include(owner string) bool { return o.All || (o.Name != "" && o.Name == owner) }

// OwnerLimits bound what each owner has at a time. Machines without an owner are not bounded.
type OwnerLimits struct {
	VMs       int // 0 means any number
	MemoryMiB int // of all machines of an owner; 0 means any size
}

// OwnerUsage is what the machines of an owner take.
type OwnerUsage struct {
	VMs       int
	MemoryMiB int // promised to them
}

// usage returns what the machines of an owner take. It needs mu held.
func (c *capacity) usage(owner string) (u OwnerUsage) {
	for id, each := range c.owner {
		if each == owner {
			u.VMs++
			u.MemoryMiB += c.promised[id]
		}
	}
	return u
}

// checkOwner returns an *[Error] of [CodeQuota] if one more machine is more than the owner may have. It needs mu held.
func (c *capacity) checkOwner(owner string, memory int) error {
	if owner == "" {
		return nil
	}
	used := c.usage(owner)
	if most := c.perOwner.VMs; most > 0 && used.VMs >= most {
		return &Error{
			Code:    CodeQuota,
			Message: fmt.Sprintf("the machines of token %q have reached the limit of %d that -vms-per-token sets; destroy some and try again", owner, most),
		}
	}
	if most := c.perOwner.MemoryMiB; most > 0 && used.MemoryMiB+memory > most {
		return &Error{
			Code: CodeQuota,
			Message: fmt.Sprintf("the machine needs %dmib of memory, and the machines of token %q have %dmib of the %dmib set by -memory-per-token; destroy some and try again, or ask for less memory",
				memory, owner, used.MemoryMiB, most),
		}
	}
	return nil
}

package vm

import (
	"context"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"osx-builder/image"
)

// healthTime is what the hypervisor gets to tell how it is.
const healthTime = 3 * time.Second

// Health is what an operator wants to know of the Manager.
type Health struct {
	Hypervisor string            `json:"hypervisor"`
	Details    map[string]string `json:"details,omitempty"`
	Machines   int               `json:"machines"`
	Creating   int               `json:"creating"` // unfinished creations
	Disk       *image.Disk       `json:"disk,omitempty"`
	Error      *Error            `json:"error,omitempty"` // why no machine can be made
}

// answer is what the driver says of the hypervisor.
type answer struct {
	details map[string]string
	err     error
}

// Health tells whether a creation could work now. It reads no machine, and
// comes back soon though the hypervisor hangs.
func (m *Manager) Health(ctx context.Context) Health {
	h := Health{Hypervisor: m.Hypervisor}
	a := m.ask(ctx)
	h.Details = a.details
	if a.err != nil {
		h.Error = clientError(a.err)
	}
	disk, err := m.Images.Disk()
	switch {
	case err != nil && h.Error == nil:
		h.Error = &Error{Code: CodeInternal, Message: "the disk of the data folder cannot be looked at; the daemon's log has the details"}
		m.Log.Error("disk not looked at", "err", err)
	case err == nil:
		h.Disk = &disk
		if disk.Free+disk.Evictable < disk.Reserve && h.Error == nil {
			h.Error = diskLow(disk)
		}
	}
	m.mu.Lock()
	h.Creating, h.Machines = m.creating, len(m.promised)
	m.mu.Unlock()
	return h
}

func diskLow(d image.Disk) *Error {
	return &Error{
		Code: CodeDiskFull,
		Message: fmt.Sprintf("the data folder's disk has %s free, and -disk-reserve keeps %s for the host: free space on it, or remove machines and images",
			humanize.IBytes(uint64(d.Free)), humanize.IBytes(uint64(d.Reserve))),
	}
}

// ask lets the driver tell how the hypervisor is. As long as it has not
// answered it is not asked again, so that a hypervisor that hangs holds up one
// goroutine and no caller.
func (m *Manager) ask(ctx context.Context) answer {
	answered := m.asking.DoChan("", func() (any, error) {
		if !m.begin() {
			return answer{err: shuttingDown()}, nil
		}
		defer m.wg.Done()
		limited, cancel := context.WithTimeout(m.ctx, healthTime)
		defer cancel()
		return answer{details: m.Driver.Describe(limited), err: m.Driver.Ready(limited)}, nil
	})
	limited, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	select {
	case r := <-answered:
		return r.Val.(answer)
	case <-limited.Done():
		return answer{err: &Error{
			Code:    CodeHypervisorUnavailable,
			Message: fmt.Sprintf("the hypervisor (%s) has not answered for %v; see whether it waits for an answer in a dialog, or restart it", m.Hypervisor, healthTime),
		}}
	}
}

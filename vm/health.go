package vm

import (
	"context"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sync/singleflight"

	"osx-builder/image"
)

// healthTimeout is how long the hypervisor may take to describe itself.
const healthTimeout = 3 * time.Second

// Health is what an operator wants to know of the Manager.
type Health struct {
	Hypervisor string            `json:"hypervisor"`
	Details    map[string]string `json:"details,omitempty"`
	Machines   int               `json:"machines"`
	Creating   int               `json:"creating"` // unfinished creations
	Disk       *image.Disk       `json:"disk,omitempty"`
	Error      *Error            `json:"error,omitempty"` // why no machine can be created
}

// Health says whether a creation could work now. It reads no machine, and
// returns soon even if the hypervisor hangs.
func (m *Manager) Health(ctx context.Context) Health {
	h := Health{Hypervisor: m.opts.Hypervisor}
	host := m.probe.read(ctx)
	h.Details = host.details
	if host.err != nil {
		h.Error = clientError(host.err)
	}
	disk, err := m.Disk()
	switch {
	case err != nil && h.Error == nil:
		h.Error = &Error{Code: CodeInternal, Message: "the free space of the data folder cannot be read; the daemon's log has the details"}
		m.opts.Log.Error("free space not read", "err", err)
	case err == nil:
		h.Disk = &disk
		if disk.Free+disk.Evictable < disk.Reserve && h.Error == nil {
			h.Error = diskLow(disk)
		}
	}
	h.Machines, h.Creating = m.capacity.counts()
	return h
}

// Disk returns how full the disk of the data folder is.
func (m *Manager) Disk() (image.Disk, error) { return m.opts.Images.Disk() }

func diskLow(d image.Disk) *Error {
	return &Error{
		Code: CodeDiskFull,
		Message: fmt.Sprintf("the data folder's disk has %s free, and -disk-reserve keeps %s for the host: free space on it, or remove machines and images",
			humanize.IBytes(uint64(d.Free)), humanize.IBytes(uint64(d.Reserve))),
	}
}

// hostProbe asks the driver about the host.
type hostProbe struct {
	tasks      *tasks
	driver     Driver
	hypervisor string
	running    singleflight.Group
}

// hostState is what the driver says of the host.
type hostState struct {
	details map[string]string
	err     error // why no machine can be created
}

// read asks the driver. While the driver has not answered it is not asked again:
// a hypervisor that hangs holds up one goroutine, and no caller for long.
func (p *hostProbe) read(ctx context.Context) hostState {
	answered := p.running.DoChan("", func() (any, error) {
		if !p.tasks.begin() {
			return hostState{err: shuttingDown()}, nil
		}
		defer p.tasks.end()
		limited, cancel := context.WithTimeout(p.tasks.ctx, healthTimeout)
		defer cancel()
		return hostState{details: p.driver.Describe(limited), err: p.driver.Ready(limited)}, nil
	})
	limited, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	select {
	case r := <-answered:
		return r.Val.(hostState)
	case <-limited.Done():
		return hostState{err: &Error{
			Code:    CodeHypervisorUnavailable,
			Message: fmt.Sprintf("the hypervisor (%s) has not answered for %v; check whether it shows a dialog, or restart it", p.hypervisor, healthTimeout),
		}}
	}
}

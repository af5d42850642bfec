//go:build vix && cgo && !windows

package vix

import (
	"context"
	"fmt"
	"sync/atomic"

	govix "github.com/hooklift/govix"

	"osx-builder/vm"
)

// Start implements vm.Driver.
func (d *Driver) Start(ctx context.Context, m vm.Machine) error {
	h, err := d.take(ctx, vmxPath(m), d.Deadlines.Start)
	if err != nil {
		return err
	}
	defer h.drop()
	if made, err := isMade(m); err != nil {
		return err
	} else if !made {
		return fmt.Errorf("there is no machine in %s", m.Dir)
	}
	err = d.powerOn(ctx, h, m.LaunchGUI)
	switch {
	case isCode(err, codeLocked) && d.unlockSoon(ctx, m.Dir):
		err = d.powerOn(ctx, h, m.LaunchGUI)
	case isCode(err, codeNoDisplay) && m.LaunchGUI:
		d.Log.Warn("no display for launch_gui; starting without", "vm", m.ID)
		err = d.powerOn(ctx, h, false)
	}
	return err
}

// powerOn starts the machine unless it runs.
func (d *Driver) powerOn(ctx context.Context, h *hold, gui bool) error {
	options := govix.VMPOWEROP_NORMAL
	if gui {
		options = govix.VMPOWEROP_LAUNCH_GUI
	}
	return h.do(ctx, "start the machine", d.Deadlines.Start, func() error {
		if running, err := h.vm.IsRunning(); running || err != nil {
			return err
		}
		h.tools = nil
		if err := h.vm.PowerOn(options); err != nil && !isCode(err, codeRunning) {
			return err
		}
		h.tools = d.awaitTools(h.path)
		return nil
	})
}

// toolsWait is a call of WaitForToolsInGuest. VIX does not know the state of
// the guest's tools before one has ended well.
type toolsWait struct {
	done atomic.Bool
	ok   atomic.Bool
}

// known reports whether VIX knows the tools' state.
func (w *toolsWait) known() bool { return w != nil && w.ok.Load() }

// due reports whether there should be another wait.
func (w *toolsWait) due() bool { return w == nil || w.done.Load() && !w.ok.Load() }

// awaitTools begins a wait in the background. It takes no turn of the machine,
// which must stay of use meanwhile, but a reference of its own. It returns nil
// where too many waits are under way.
func (d *Driver) awaitTools(path string) *toolsWait {
	select {
	case d.waits <- struct{}{}:
	default:
		return nil
	}
	w := new(toolsWait)
	go func() {
		defer func() { <-d.waits }()
		defer w.done.Store(true)
		w.ok.Store(guard(func() error {
			v, h, err := open(d.host, path)
			if err != nil {
				return err
			}
			defer release(h)
			return v.WaitForToolsInGuest(d.Deadlines.Tools)
		}) == nil)
	}()
	return w
}

package vm

import (
	"context"
	"fmt"
)

// Screenshot returns what a machine's screen shows, as a PNG image.
func (m *Manager) Screenshot(ctx context.Context, id string) ([]byte, error) {
	r, err := m.store.get(id)
	if err != nil {
		return nil, err
	}
	d, ok := m.opts.Driver.(Screenshotter)
	if !ok {
		return nil, notSupported(m.opts.Hypervisor, "screenshots")
	}
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	st, err := m.reader.inspect(ctx, r)
	if err != nil {
		return nil, unreadable(id, err)
	}
	if st.Power == PoweredOff || st.Power == "" {
		return nil, &Error{Code: CodePower, Message: fmt.Sprintf("machine %s is not powered on, so its screen shows nothing", id)}
	}
	png, err := d.Screenshot(ctx, m.store.machine(r))
	if err == nil {
		return png, nil
	}
	if known := asError(err); known != nil {
		return nil, known
	}
	return nil, &Error{Code: CodeHypervisor, Message: fmt.Sprintf("the screen of machine %s cannot be read: %v", id, err), Err: err}
}

package vsphere

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
)

// maxScreenshot bounds a screenshot, in bytes.
const maxScreenshot = 32 << 20

var _ vm.Screenshotter = (*Driver)(nil)

// Screenshot implements [vm.Screenshotter]. The server has the picture at the path /screen.
func (d *Driver) Screenshot(ctx context.Context, m vm.Machine) ([]byte, error) {
	s, err := d.site(ctx)
	if err != nil {
		return nil, err
	}
	c, err := d.existing(ctx, s, m, "runtime.powerState")
	if err != nil {
		return nil, d.explain("reading the machine's state", err)
	}
	if c.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		return nil, &vm.Error{Code: vm.CodePower, Message: fmt.Sprintf("machine %s is not powered on, so it has no screen", m.ID)}
	}
	u := s.client.URL()
	u.Path, u.RawQuery = "/screen", "id="+c.at.Value
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	var shot []byte
	err = s.client.Do(ctx, req, func(res *http.Response) error {
		if res.StatusCode != http.StatusOK {
			return &vm.Error{Code: vm.CodeHypervisor, Message: fmt.Sprintf("vSphere returned %s instead of a screenshot; the user needs the privilege VirtualMachine.Interact.ConsoleInteract", res.Status)}
		}
		var err error
		shot, err = io.ReadAll(io.LimitReader(res.Body, maxScreenshot))
		return err
	})
	if err == nil && !bytes.HasPrefix(shot, []byte("\x89PNG")) {
		err = &vm.Error{Code: vm.CodeHypervisor, Message: "vSphere returned something else than a PNG image as the screenshot"}
	}
	if err != nil {
		return nil, d.explain("taking the screenshot", err)
	}
	return shot, nil
}

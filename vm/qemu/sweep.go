package qemu

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
)

// Sweep ends every QEMU that works in the machines' folder for a machine that
// is not known, and removes what such machines have on the managed networks. It
// puts right what was broken there for those that are known.
func (d *Driver) Sweep(ctx context.Context, known func(id string) bool) error {
	var errs []error
	for _, id := range strays(d.machines) {
		if known(id) {
			continue
		}
		d.log.Info("ending the QEMU of a machine that is not known", "vm", id)
		errs = append(errs, halt(ctx, filepath.Join(d.machines, id)), haltStrays(ctx, id))
	}
	if err := d.networks.Sweep(ctx, known); err != nil {
		errs = append(errs, fmt.Errorf("unplugging unknown machines from their networks: %w", err))
	}
	if err := d.networks.Repair(ctx); err != nil {
		errs = append(errs, fmt.Errorf("putting the networks of known machines right: %w", err))
	}
	return errors.Join(errs...)
}

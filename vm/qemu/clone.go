package qemu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/vmx"
)

// Clone creates an empty qcow2 overlay over each of the image's disks. It copies
// nothing, so it takes milliseconds however large the image is, except that it
// may convert a disk of the image first; see [disk.Prepared]. The image must have
// passed [vmx.Check].
func (d *Driver) Clone(ctx context.Context, m vm.Machine, gold string) error {
	if _, err := readConfig(m.Dir); err == nil {
		return nil
	}
	if err := d.erase(ctx, m); err != nil {
		return err
	}
	clone, err := readImage(m, gold, d.networks.backends)
	if err != nil {
		return err
	}
	if _, err := d.programs.forBoard(clone.Board).find(ctx); err != nil {
		return err
	}
	if err := mapTPM(ctx, &clone); err != nil {
		return err
	}
	if m.Start == vm.StartMemory {
		for i := range clone.Disks {
			clone.Disks[i].Convert()
		}
	}
	if err := d.prepared.Prepare(ctx, gold, clone.Disks); err != nil {
		return err
	}
	for _, one := range clone.Disks {
		if one.Unprepared != "" {
			clone.Warnings.Add(vm.WarningSlowDisk, "%s: the machine reads the disk in its compressed or sparse format, which is slow, because it could not "+
				"be converted: %s; make room on the disk of the data folder, remove the image and create the machine again", one.Slot(), one.Unprepared)
		}
	}
	clone.Disks[0].Size = max(clone.Disks[0].Size, m.Disk) // beyond the image's end an overlay reads zeroes
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return disk.FullError(err)
	}
	if m.Start == vm.StartMemory {
		if err := d.memory.plan(ctx, m, &clone, gold); err != nil {
			return err
		}
	}
	if clone.Template == nil { // otherwise Start copies the template's
		if err := createDisks(ctx, d.programs, m.Dir, &clone); err != nil {
			return err
		}
	}
	return disk.FullError(writeConfig(m.Dir, clone))
}

// createDisks creates the empty overlays of a clone in dir, and its copy of EFI's
// variables.
func createDisks(ctx context.Context, programs programs, dir string, clone *cloneConfig) error {
	if clone.Firmware == "efi" {
		qemu, err := programs.forBoard(clone.Board).find(ctx)
		if err != nil {
			return err
		}
		f, err := findFirmware(qemu.path, clone.hardware)
		if err != nil {
			return err
		}
		if err := createVariables(f, clone.hardware, filepath.Join(dir, varsFile)); err != nil {
			return disk.FullError(err)
		}
	}
	for i := range clone.Disks {
		if err := clone.Disks[i].CreateOverlay(dir); err != nil {
			return disk.FullError(err)
		}
	}
	return nil
}

// readImage reads which hardware the image at gold needs.
func readImage(m vm.Machine, gold string, networks networkBackends) (cloneConfig, error) {
	root, err := os.OpenRoot(filepath.Dir(gold))
	if err != nil {
		return cloneConfig{}, fmt.Errorf("opening the image: %w", err)
	}
	defer root.Close()
	text, err := root.ReadFile(filepath.Base(gold))
	if err != nil {
		return cloneConfig{}, fmt.Errorf("opening the image: %w", err)
	}
	file, err := vmx.Parse(text)
	if err != nil {
		return cloneConfig{}, disk.ImageError(err)
	}
	wanted, err := file.Hardware()
	if err != nil {
		return cloneConfig{}, disk.ImageError(err)
	}
	clone := cloneConfig{Annotation: m.Annotation}
	if clone.hardware, clone.Warnings, err = mapHardware(wanted, networks); err != nil {
		return cloneConfig{}, err
	}
	for i, from := range wanted.Disks {
		if err := clone.Disks[i].ReadLayers(root, from.File); err != nil {
			return cloneConfig{}, err
		}
	}
	return clone, nil
}

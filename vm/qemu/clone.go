package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmx"
)

const (
	// overlayTimeout bounds the making of an empty overlay, which takes
	// milliseconds on a disk that is not overwhelmed.
	overlayTimeout = time.Minute

	// maxLayers is how long a chain of VMDK files may be. VMware's own is 32.
	maxLayers = 32
)

// Clone makes an empty qcow2 overlay over each of the image's disks. Nothing
// is copied, so it takes milliseconds whatever the image's size. The image
// must have passed vmx.Check.
func (d *Driver) Clone(ctx context.Context, m vm.Machine, gold string) error {
	if _, err := readConfig(m.Dir); err == nil {
		return nil
	}
	if err := d.erase(ctx, m); err != nil {
		return err
	}
	clone, err := d.readImage(m, gold)
	if err != nil {
		return err
	}
	qemu, err := d.binaries.find(ctx)
	if err != nil {
		return err
	}
	if err := d.prepared.prepare(ctx, gold, clone.Disks); err != nil {
		return err
	}
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return diskFull(err)
	}
	if clone.Firmware == "efi" {
		f, err := findFirmware(qemu.path)
		if err != nil {
			return err
		}
		if err := copyFile(f.vars, filepath.Join(m.Dir, varsFile)); err != nil {
			return diskFull(err)
		}
	}
	for _, disk := range clone.Disks {
		if err := createOverlay(ctx, m.Dir, disk); err != nil {
			return diskFull(err)
		}
	}
	return diskFull(writeJSON(filepath.Join(m.Dir, machineFile), clone))
}

// readImage finds out what hardware the image at gold wants.
func (d *Driver) readImage(m vm.Machine, gold string) (cloneConfig, error) {
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
		return cloneConfig{}, refused(err)
	}
	wanted, err := file.Hardware()
	if err != nil {
		return cloneConfig{}, refused(err)
	}
	clone := cloneConfig{Annotation: m.Annotation}
	if clone.hardware, err = mapHardware(wanted); err != nil {
		return cloneConfig{}, err
	}
	for i, disk := range wanted.Disks {
		if err := layers(root, disk.File, &clone.Disks[i]); err != nil {
			return cloneConfig{}, err
		}
	}
	for _, what := range wanted.Leftovers {
		d.log.Info("switched off a device that reaches out of the machine", "vm", m.ID, "device", what)
	}
	return clone, nil
}

// layers finds the VMDK files under a disk: the one that the .vmx names, its
// parent, and so on.
func layers(root *os.Root, name string, into *disk) error {
	for name = path.Clean(name); ; {
		if len(into.Backing) == maxLayers {
			return invalid("disk %s has more than %d layers of VMDK files", into.slot(), maxLayers)
		}
		layer, err := vmx.ReadVMDK(root, name)
		if err != nil {
			return refused(err)
		}
		into.Backing = append(into.Backing, filepath.Join(root.Name(), filepath.FromSlash(name)))
		into.Size = max(into.Size, layer.Capacity)
		into.slow = into.slow || slices.ContainsFunc(layer.Extents, func(e vmx.Extent) bool { return e.Type == "SPARSE" })
		if layer.Parent == "" {
			return nil
		}
		name = path.Join(path.Dir(name), layer.Parent)
	}
}

// createOverlay makes an empty overlay and brings it to disk. With -u qemu-img
// opens no file but the new one: the image's files are not its to judge.
func createOverlay(ctx context.Context, dir string, d disk) error {
	ctx, cancel := context.WithTimeout(ctx, overlayTimeout)
	defer cancel()
	format, below := "vmdk", d.Backing[0]
	if d.Base != "" {
		format, below = "qcow2", d.Base
	}
	cmd := exec.CommandContext(ctx, imageTool, "create", "-q", "-u", "-f", "qcow2",
		"-F", format, "-b", below, d.Overlay, strconv.FormatInt(d.Size, 10))
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return &commandError{what: "making the overlay of disk " + d.slot(), stderr: strings.TrimSpace(string(out)), err: err}
	}
	return vm.SyncPath(filepath.Join(dir, d.Overlay))
}

// commandError is the failure of a QEMU program, with what it said of it.
type commandError struct {
	what, stderr string
	err          error
}

func (e *commandError) Error() string { return fmt.Sprintf("%s: %v: %s", e.what, e.err, e.stderr) }

func (e *commandError) Unwrap() error { return e.err }

// refused is the client's error for an image that vmx refuses.
func refused(err error) error {
	var check *vmx.CheckError
	if !errors.As(err, &check) {
		return fmt.Errorf("reading the image: %w", err)
	}
	code := vm.CodeImageInvalid
	if check.Unsafe() {
		code = vm.CodeImageUnsafe
	}
	return &vm.Error{Code: code, Message: check.Error(), Err: err}
}

// diskFull gives an error its own code where it means that the disk is full.
func diskFull(err error) error {
	var command *commandError
	said := errors.As(err, &command) &&
		(strings.Contains(command.stderr, syscall.ENOSPC.Error()) || strings.Contains(command.stderr, syscall.EDQUOT.Error()))
	if said || vm.IsDiskFull(err) {
		return &vm.Error{Code: vm.CodeDiskFull, Message: "the disk that holds the machines is full; delete machines or images, or make room", Err: err}
	}
	return err
}

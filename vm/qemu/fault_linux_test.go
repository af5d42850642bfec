package qemu_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"osx-builder/vm"
	"osx-builder/vm/qemu"
	"osx-builder/vm/vmtest/e2e"
)

// fillGuest writes to its disk for ever, each time 64 KiB further, within the first MiB. It is code for the real mode:
//
//	xor ax, ax; mov ds, ax; mov si, 0x7c1a
//	again: mov ax, 0x4300; int 0x13; add word [0x7c22], 128; and word [0x7c22], 2047; jmp again
//
// What follows is the packet that the BIOS takes: one sector, from 0:7c00, to block 128.
var fillGuest = []byte{
	0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x1a, 0x7c, 0xb8, 0x00, 0x43, 0xcd, 0x13, 0x81, 0x06, 0x22, 0x7c, 0x80, 0x00,
	0x81, 0x26, 0x22, 0x7c, 0xff, 0x07, 0xeb, 0xed, 0x10, 0x00, 0x01, 0x00, 0x00, 0x7c, 0x00, 0x00, 0x80, 0, 0, 0, 0, 0, 0, 0,
}

// faulty is a driver that calls happen after it has made a clone, before the clone starts.
type faulty struct {
	*qemu.Driver
	happen func(m vm.Machine, gold string) error
}

func (f *faulty) Clone(ctx context.Context, m vm.Machine, gold string) error {
	if err := f.Driver.Clone(ctx, m, gold); err != nil {
		return err
	}
	return f.happen(m, gold)
}

// Destroy cannot remove a folder on which something is mounted.
func (f *faulty) Destroy(ctx context.Context, m vm.Machine) error {
	if f.Driver.Destroy(ctx, m) == nil {
		return nil
	}
	return errors.Join(unix.Unmount(m.Dir, unix.MNT_DETACH), f.Driver.Destroy(ctx, m))
}

// moveToSmallDisk moves the machine to a file system of 1 MiB.
func moveToSmallDisk(m vm.Machine, _ string) error {
	small := m.Dir + ".small"
	return errors.Join(
		os.Mkdir(small, 0o700),
		unix.Mount("tmpfs", small, "tmpfs", 0, "size=1m,mode=700"),
		exec.Command("cp", "-a", m.Dir+"/.", small).Run(),
		unix.Mount(small, m.Dir, "", unix.MS_MOVE, ""),
		os.Remove(small),
	)
}

// damageImage makes the first grain of the image's disk unreadable, which was whole when the image was checked.
func damageImage(_ vm.Machine, gold string) error {
	name := filepath.Join(filepath.Dir(gold), "disk.vmdk")
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	copy(data[bytes.Index(data, []byte{0x78, 0x9c}):], strings.Repeat("\xff", 20)) // the grain's deflated data
	return errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, data, 0o600))
}

// A machine whose disk fails after its start is never ready: the creation says what failed and what to do.
func TestDiskFaultsFailTheCreation(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	if !e2e.IsolateTest(t) {
		return
	}
	for name, test := range map[string]struct {
		guest  []byte
		happen func(vm.Machine, string) error
		code   vm.Code
		words  string
	}{
		"a full disk":       {fillGuest, moveToSmallDisk, vm.CodeDiskFull, "the guest was stopped at a write; delete machines or images, or make room"},
		"an unreadable one": {idleGuest, damageImage, vm.CodeImageInvalid, "could not read its disk scsi0:0 (disk.vmdk)"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTestDriver(t)
			g := newManaged(r, &faulty{r.Driver, test.happen}, test.guest)
			id := g.create().ID
			v := g.settled(1)[id]
			if v.Phase != vm.Failed || v.Error == nil || v.Error.Code != test.code || !strings.Contains(v.Error.Message, test.words) {
				t.Errorf("got phase %s and error %+v, want failed with %s: %s", v.Phase, v.Error, test.code, test.words)
			}
			if n := processes(t, g.machine(id)); n != 0 {
				t.Errorf("got %d processes of a machine that failed, want none", n)
			}
		})
	}
}

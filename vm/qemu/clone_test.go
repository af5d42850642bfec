package qemu_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// scsi0 are the lines of a disk on a SCSI controller of the given model.
func scsi0(model string) []string {
	return []string{
		`scsi0.present = "TRUE"`, `scsi0.virtualDev = "` + model + `"`,
		`scsi0:0.present = "TRUE"`, `scsi0:0.fileName = "disk.vmdk"`,
	}
}

func on(slot string) []string {
	controller, _, _ := strings.Cut(slot, ":")
	return []string{controller + `.present = "TRUE"`, slot + `.present = "TRUE"`, slot + `.fileName = "disk.vmdk"`}
}

// Every kind of controller and card that QEMU has boots the image.
func TestHardwareBoots(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string][]string{
		"pvscsi":       scsi0("pvscsi"),
		"lsisas1068":   scsi0("lsisas1068"),
		"lsilogic":     scsi0("lsilogic"),
		"sata":         on("sata0:5"),
		"ide":          on("ide1:1"),
		"nvme":         on("nvme0:0"),
		"two disks":    append(on("ide0:0"), on("nvme1:3")...),
		"e1000":        append(on("ide0:0"), `ethernet0.present = "TRUE"`, `ethernet0.virtualDev = "e1000"`),
		"e1000e":       append(on("ide0:0"), `ethernet0.present = "TRUE"`, `ethernet0.virtualDev = "e1000e"`),
		"vlance":       append(on("ide0:0"), `ethernet0.present = "TRUE"`, `ethernet0.virtualDev = "vlance"`),
		"no card":      on("ide0:0"),
		"second card":  append(on("ide0:0"), `ethernet1.present = "TRUE"`, `ethernet1.virtualDev = "vmxnet3"`),
		"many devices": append(append(scsi0("pvscsi"), on("sata0:0")...), on("nvme0:0")...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newTestDriver(t)
			m := r.machine()
			r.clone(m, r.image(idleGuest, lines...))
			r.start(m)
			until(t, harness.Timeout, "a word on the serial port", func() bool { return serial(m) == "OK\n" })
			hasNIC := strings.Contains(strings.Join(lines, ""), "ethernet")
			if mac := r.inspect(m).MAC; (mac != "") != hasNIC {
				t.Errorf("got MAC address %q, want one: %t", mac, hasNIC)
			}
		})
	}
}

// What QEMU has no device or no place for is refused in words that name it.
func TestHardwareRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		lines []string
		words []string
	}{
		"buslogic":           {scsi0("buslogic"), []string{"scsi0:0", "buslogic", "pvscsi, lsisas1068 or lsilogic"}},
		"lsilogic unit":      {append(on("scsi0:8"), `scsi0.virtualDev = "lsilogic"`), []string{"scsi0:8", "0 to 6"}},
		"lsisas1068 unit":    {append(on("scsi0:9"), `scsi0.virtualDev = "lsisas1068"`), []string{"scsi0:9", "0 to 7"}},
		"sata unit":          {on("sata0:6"), []string{"sata0:6", "0 to 5"}},
		"unknown card":       {append(on("ide0:0"), `ethernet0.present = "TRUE"`, `ethernet0.virtualDev = "ne2000"`), []string{"ne2000", "vmxnet3"}},
		"no disk":            {nil, []string{"no hard disk"}},
		"disk not there":     {[]string{`ide0:0.present = "TRUE"`, `ide0:0.fileName = "other.vmdk"`}, []string{"other.vmdk"}},
		"no place in VMware": {on("ide7:0"), []string{"ide7:0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newTestDriver(t)
			m := r.machine()
			err := r.Clone(t.Context(), m, r.image(idleGuest, test.lines...))
			wantCode(t, err, vm.CodeImageInvalid, test.words...)
			if st := r.inspect(m); !cmp.Equal(st, vm.Status{}) {
				t.Errorf("got %+v of a machine that could not be cloned, want nothing", st)
			}
		})
	}
}

// Disks that are changes to other disks are read through the whole chain.
func TestLayeredImage(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	gold := r.image(idleGuest, plain...)
	dir := filepath.Dir(gold)
	r.run("qemu-img", "convert", "-O", "vmdk", filepath.Join(dir, "disk.vmdk"), filepath.Join(dir, "base.vmdk"))
	if err := os.Remove(filepath.Join(dir, "disk.vmdk")); err != nil {
		t.Fatal(err)
	}
	r.run("sh", "-c", `cd "$1" && qemu-img create -q -f vmdk -F vmdk -b base.vmdk disk.vmdk`, "sh", dir)
	m := r.machine()
	r.clone(m, gold)
	r.start(m)
	until(t, harness.Timeout, "a word on the serial port", func() bool { return serial(m) == "OK\n" })
}

// EFI firmware is there for an image that wants it, with variables of its own.
func TestEFI(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	gold := r.image(idleGuest, append([]string{`firmware = "efi"`}, plain...)...)
	err := r.Clone(t.Context(), m, gold)
	var lack *vm.Error
	if errors.As(err, &lack) && lack.Code == vm.CodeHypervisorUnavailable && os.Getenv("CI") == "" {
		t.Skip(lack.Message)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.start(m)
	if got := r.inspect(m).Power; got != vm.PoweredOn {
		t.Errorf("got %q, want %q", got, vm.PoweredOn)
	}
	until(t, harness.Timeout, "a word of the firmware in its variables", func() bool {
		info, err := os.Stat(filepath.Join(m.Dir, "efivars.fd"))
		return err == nil && info.ModTime().After(mustStat(t, filepath.Join(m.Dir, "machine.json")).ModTime())
	})
}

func mustStat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// An interrupted Clone leaves nothing that counts as a machine, and the next Clone
// starts over.
func TestCloneAfterInterruption(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"disk0.qcow2", "litter"} {
		if err := os.WriteFile(filepath.Join(m.Dir, name), []byte("half"), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if st := r.inspect(m); !cmp.Equal(st, vm.Status{}) {
		t.Errorf("got %+v of a half-made clone, want nothing", st)
	}
	gold := r.image(idleGuest, plain...)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Clone(cancelled, m, gold); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v of a cancelled Clone, want one that wraps the context's", err)
	}
	r.clone(m, gold)
	if _, err := os.Stat(filepath.Join(m.Dir, "litter")); err == nil {
		t.Error("litter of the interrupted clone is still there")
	}
	r.start(m)
}

// A second Clone does not take away what the guest wrote.
func TestCloneOfWhole(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	gold := r.image(idleGuest, plain...)
	r.clone(m, gold)
	before := sums(t, m.Dir)
	r.run("qemu-io", "-c", "write 64k 512", filepath.Join(m.Dir, "disk0.qcow2"))
	written := sums(t, m.Dir)
	if cmp.Equal(before, written) {
		t.Fatal("writing to the disk changed nothing")
	}
	r.clone(m, gold)
	if diff := cmp.Diff(written, sums(t, m.Dir)); diff != "" {
		t.Errorf("the second Clone changed files, -before +after:\n%s", diff)
	}
}

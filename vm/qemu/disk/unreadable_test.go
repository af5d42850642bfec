package disk_test

import (
	"bytes"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
)

// A disk whose tables are right, but whose compressed data is not, is an invalid image. No machine reads it instead.
// Only for want of space is such a disk not noticed.
func TestPrepareDamagedDisk(t *testing.T) {
	gold := filepath.Join(t.TempDir(), "gold")
	folder := vmdk(t, filepath.Join(gold, "sha256-aa"), "streamOptimized")
	name := filepath.Join(folder, "a, disk.vmdk")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	marker := bytes.Index(data, []byte{0x78, 0x9c}) // where the deflated data of a grain begins
	if marker < 0 {
		t.Fatal("the disk has no compressed grain")
	}
	copy(data[marker:], strings.Repeat("\xff", 20))
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, reserve := range []int64{0, math.MaxInt64 / 2} {
		p, err := disk.OpenPrepared(gold, reserve, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time, the failure is known
			err = p.Prepare(t.Context(), filepath.Join(folder, "machine.vmx"), []disk.Disk{readLayers(t, folder)})
			var e *vm.Error
			if reserve > 0 && err == nil {
				continue
			}
			if reserve > 0 || !errors.As(err, &e) || e.Code != vm.CodeImageInvalid {
				t.Fatalf("with a reserve of %d: got %v, want image-invalid only without one", reserve, err)
			}
			for _, part := range []string{"scsi0:1", "a, disk.vmdk", "error while reading", "pack it again"} {
				if !strings.Contains(e.Message, part) {
					t.Errorf("got %q, want it to name %q", e.Message, part)
				}
			}
			if strings.Contains(e.Message, gold) {
				t.Errorf("got %q, which has a path of the host", e.Message)
			}
		}
	}
}

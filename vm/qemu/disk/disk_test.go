package disk_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/process"
)

// vmdk creates an image folder with one disk of this VMDK subformat, which holds
// 1 MiB of data, and returns the folder.
func vmdk(t *testing.T, folder, subformat string) string {
	t.Helper()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	raw := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(raw, bytes.Repeat([]byte("data"), 1<<18), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat="+subformat, raw, filepath.Join(folder, "a, disk.vmdk"))
	return folder
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(disk.Tool, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", disk.Tool, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// readLayers returns the disk of the image in folder.
func readLayers(t *testing.T, folder string) disk.Disk {
	t.Helper()
	root, err := os.OpenRoot(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	d := disk.Disk{Bus: "scsi", Unit: 1, Overlay: "disk0.qcow2"}
	if err := d.ReadLayers(root, "a, disk.vmdk"); err != nil {
		t.Fatalf("ReadLayers: %v", err)
	}
	return d
}

// prepare prepares the disks of the image in folder.
func prepare(t *testing.T, gold, folder string, disks []disk.Disk) {
	t.Helper()
	p, err := disk.OpenPrepared(gold, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Prepare(t.Context(), filepath.Join(folder, "machine.vmx"), disks); err != nil {
		t.Fatalf("Prepare: %v", err)
	}
}

// A slow disk is prepared, a fast one is used as it is. In both cases the overlay
// holds the image's data.
func TestOverlay(t *testing.T) {
	for subformat, prepared := range map[string]bool{"streamOptimized": true, "monolithicFlat": false} {
		t.Run(subformat, func(t *testing.T) {
			gold, dir := filepath.Join(t.TempDir(), "gold"), t.TempDir()
			folder := vmdk(t, filepath.Join(gold, "sha256-aa"), subformat)
			d := readLayers(t, folder)
			if d.Size != 1<<20 || len(d.Backing) != 1 {
				t.Errorf("got size %d and layers %v, want 1 MiB and one", d.Size, d.Backing)
			}
			disks := []disk.Disk{d}
			prepare(t, gold, folder, disks)
			if got := disks[0].Base != ""; got != prepared {
				t.Fatalf("got base %q, want one: %t", disks[0].Base, prepared)
			}
			if err := disks[0].CreateOverlay(dir); err != nil {
				t.Fatalf("CreateOverlay: %v", err)
			}
			run(t, "compare", "-f", "vmdk", "-F", "qcow2", d.Backing[0], filepath.Join(dir, d.Overlay))
		})
	}
}

// QEMU gets every layer of a disk open and with its format, and a prepared disk
// instead of the VMDK files. It finds the extents of a text descriptor open too.
func TestBlockdev(t *testing.T) {
	for subformat, want := range map[string]struct {
		drivers string
		files   int
	}{
		"monolithicSparse": {"qcow2 vmdk", 2},
		"streamOptimized":  {"qcow2 qcow2", 2},
		"monolithicFlat":   {"qcow2 vmdk", 3},
	} {
		t.Run(subformat, func(t *testing.T) {
			gold, dir := filepath.Join(t.TempDir(), "gold"), t.TempDir()
			folder := vmdk(t, filepath.Join(gold, "sha256-aa"), subformat)
			disks := []disk.Disk{readLayers(t, folder)}
			if subformat == "streamOptimized" {
				prepare(t, gold, folder, disks)
			}
			d := disks[0]
			if err := d.CreateOverlay(dir); err != nil {
				t.Fatal(err)
			}
			var files process.Files
			defer files.Close()
			option, err := d.Blockdev("disk0", dir, &files)
			if err != nil {
				t.Fatal(err)
			}
			type node struct {
				Driver   string
				ReadOnly bool `json:"read-only"`
				File     struct{ Filename string }
				Backing  *node
			}
			var top node
			if err := json.Unmarshal([]byte(option), &top); err != nil {
				t.Fatal(err)
			}
			var drivers []string
			for n := &top; n != nil; n = n.Backing {
				drivers = append(drivers, n.Driver)
				if !strings.HasPrefix(n.File.Filename, "/dev/fdset/") || n.ReadOnly == (n == &top) {
					t.Errorf("got layer %+v, want a file that is open, and every layer but the overlay read-only", n)
				}
			}
			if got := strings.Join(drivers, " "); got != want.drivers || files.Len() != want.files {
				t.Errorf("got layers %s of %d files, want %s of %d", got, files.Len(), want.drivers, want.files)
			}
		})
	}
}

func TestReadLayersOfMissingFile(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := new(disk.Disk).ReadLayers(root, "none.vmdk"); err == nil {
		t.Error("got no error for a disk without its file")
	}
}

// A caller that gives up while a disk is prepared gets its context's cause.
func TestPrepareGivenUp(t *testing.T) {
	gold := filepath.Join(t.TempDir(), "gold")
	folder := vmdk(t, filepath.Join(gold, "sha256-aa"), "streamOptimized")
	p, err := disk.OpenPrepared(gold, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if err := p.Prepare(ctx, filepath.Join(folder, "machine.vmx"), []disk.Disk{readLayers(t, folder)}); !errors.Is(err, stop) {
		t.Errorf("got error %v, want %v", err, stop)
	}
	if files, _ := filepath.Glob(filepath.Join(filepath.Dir(gold), vm.PreparedFolder, "*", "*")); len(files) > 0 {
		t.Errorf("got %v, want nothing prepared", files)
	}
}

// A full disk has a code of its own, whether the daemon or a program of QEMU met
// it.
func TestFullError(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		full bool
	}{
		"a write":        {fmt.Errorf("writing: %w", syscall.ENOSPC), true},
		"a program":      {&disk.CommandError{Stderr: "qemu-img: d.qcow2: Could not resize image: No space left on device", Err: errors.New("it ended")}, true},
		"a quota":        {&disk.CommandError{Stderr: "qemu-img: d.qcow2: Disk quota exceeded", Err: errors.New("it ended")}, true},
		"another error":  {&disk.CommandError{Stderr: "qemu-img: d.qcow2: Permission denied", Err: errors.New("it ended")}, false},
		"something else": {errors.New("no such device"), false},
	} {
		var e *vm.Error
		got := errors.As(disk.FullError(test.err), &e) && e.Code == vm.CodeDiskFull
		if got != test.full {
			t.Errorf("%s: got disk-full %t, want %t", name, got, test.full)
		}
	}
}

// Files that a killed daemon did not finish are removed even if the folder's path
// contains the characters of a pattern. Without gold images nothing is removed.
func TestOpenPreparedInAnyFolder(t *testing.T) {
	const temporary = "prepared/sha256-aa/.new-1"
	write := func(path string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	open := func(gold string) {
		t.Helper()
		if _, err := disk.OpenPrepared(gold, 0, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"[ci]", "a*b?c", `back\slash`} {
		images := filepath.Join(t.TempDir(), name)
		gold := filepath.Join(images, "gold")
		write(filepath.Join(images, temporary))
		write(filepath.Join(images, "prepared", "file"))
		write(filepath.Join(gold, "sha256-aa", "image.json")) // the image exists
		open(gold)
		if _, err := os.Lstat(filepath.Join(images, temporary)); err == nil {
			t.Errorf("%s: the unfinished file is still there", images)
		}
	}
	t.Chdir(t.TempDir())
	write(temporary)
	open("")
	if _, err := os.Lstat(temporary); err != nil {
		t.Errorf("without gold images, a file in the working directory: %v", err)
	}
}

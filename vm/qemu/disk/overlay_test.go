package disk_test

import (
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"osx-builder/vm/qemu/disk"
)

// An empty overlay is what qemu-img makes, whatever the disk's size, and QEMU grows it.
func TestEmptyOverlay(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "base.qcow2")
	for _, size := range []int64{512, 1 << 20, 512<<20 + 512, 10 << 30, 62 << 40} {
		run(t, "create", "-q", "-f", "qcow2", base, strconv.FormatInt(size, 10))
		theirs := filepath.Join(dir, "theirs.qcow2")
		run(t, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, theirs)
		d := disk.Disk{Bus: "scsi", Overlay: "disk0.qcow2", Base: base, Size: size}
		if err := d.CreateOverlay(dir); err != nil {
			t.Fatal(err)
		}
		ours := filepath.Join(dir, d.Overlay)
		if got, want := infoOf(t, ours), infoOf(t, theirs); got != want {
			t.Errorf("%d bytes: got %s, want %s", size, got, want)
		}
		run(t, "check", "-q", ours)
		if size > 1<<20 {
			run(t, "bench", "-q", "-w", "-c", "50", "-d", "4", "-s", "65536", "-S", "10485760", "-f", "qcow2", ours)
			run(t, "check", "-q", ours)
		}
		if err := d.Check(dir); err != nil {
			t.Errorf("%d bytes, after writes: %v", size, err)
		}
	}
}

// infoOf returns what qemu-img says about an image, without what differs between two of the same content.
func infoOf(t *testing.T, path string) string {
	t.Helper()
	var info map[string]any
	if err := json.Unmarshal([]byte(run(t, "info", "--output=json", path)), &info); err != nil {
		t.Fatal(err)
	}
	delete(info, "filename")
	delete(info, "actual-size")
	delete(info, "children")
	text, err := json.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// QEMU would not open the overlay of a disk that it cannot have, or whose path it cannot read.
func TestImpossibleOverlay(t *testing.T) {
	for name, test := range map[string]struct {
		disk disk.Disk
		want string
	}{
		"size": {disk.Disk{Bus: "sata", Base: "/base", Size: 1 << 60}, "disk sata0:0 has 1152921504606846976 bytes; on QEMU it can have at most 2251799813685248"},
		"path": {disk.Disk{Bus: "sata", Base: "/" + strings.Repeat("a", 1023), Size: 512}, "has 1024 bytes; QEMU allows 1023; choose a shorter one with -data"},
	} {
		t.Run(name, func(t *testing.T) {
			test.disk.Overlay = "disk0.qcow2"
			if err := test.disk.CreateOverlay(t.TempDir()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

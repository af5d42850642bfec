package disk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/vmtest/harness"
	"osx-builder/vm/vmx"
)

// hostileImage names the folder of an image that a process of its own checks and prepares.
const hostileImage = "OSXB_TEST_HOSTILE_IMAGE"

// What a hostile image may cost, besides what an honest one costs.
const (
	mostCPU    = 2 * time.Second
	mostMemory = 100 << 20 // bytes
)

// No image costs more than 2 s of processor time and 100 MiB, in the daemon and in qemu-img together, whatever its tables
// claim. What passes the check becomes a disk.
func TestHostileImages(t *testing.T) {
	if folder := os.Getenv(hostileImage); folder != "" {
		checkAndPrepare(t, folder)
		return
	}
	t.Parallel()
	images := hostileImages(t)
	if len(images) < 50 {
		t.Errorf("got %d images, want 50 or more", len(images))
	}
	honest := vmdk(t, filepath.Join(t.TempDir(), "honest"), "monolithicSparse")
	baseCPU, baseMemory, out := cost(t, honest, func(string) error { return nil })
	if !strings.Contains(out, "it has an overlay over prepared") {
		t.Errorf("an honest image: got %s, want a prepared disk", out)
	}
	for name, change := range images {
		t.Run(name, func(t *testing.T) {
			cpu, memory, _ := cost(t, honest, change)
			if cpu > baseCPU+mostCPU || memory > baseMemory+mostMemory {
				t.Errorf("it cost %v and %d MiB, an honest image %v and %d MiB", cpu, memory>>20, baseCPU, baseMemory>>20)
			}
		})
	}
}

// cost changes a copy of an honest image, and returns what checking and preparing it costs.
func cost(t *testing.T, honest string, change func(vmdk string) error) (cpu time.Duration, memory int64, output string) {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "gold", "sha256-aa")
	harness.Must(t, os.CopyFS(folder, os.DirFS(honest)))
	harness.Must(t, change(filepath.Join(folder, "a, disk.vmdk")))
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestHostileImages$")
	cmd.Env = append(os.Environ(), hostileImage+"="+folder)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage) // of the process and its children
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), usage.Maxrss << 10, string(out)
}

// checkAndPrepare does with an image what the daemon does. Errors are as good as success.
func checkAndPrepare(t *testing.T, folder string) {
	t.Helper()
	harness.Must(t, os.WriteFile(filepath.Join(folder, "machine.vmx"), []byte("config.version = \"8\"\nvirtualHW.version = \"19\"\n"+
		"scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\nscsi0:1.present = \"TRUE\"\nscsi0:1.fileName = \"a, disk.vmdk\"\n"), 0o644))
	root, err := os.OpenRoot(folder)
	harness.Must(t, err)
	defer root.Close()
	if err := (vmx.Checker{MaxDisk: 2 << 40}).Check(root, "machine.vmx"); err != nil {
		return
	}
	d := disk.Disk{Bus: "scsi", Unit: 1, Overlay: "disk0.qcow2"}
	if err := d.ReadLayers(root, "a, disk.vmdk"); err != nil {
		return
	}
	gold := filepath.Dir(filepath.Dir(folder))
	p, err := disk.OpenPrepared(gold, 0, slog.New(slog.DiscardHandler))
	harness.Must(t, err)
	disks := []disk.Disk{d}
	if err := p.Prepare(t.Context(), filepath.Join(folder, "machine.vmx"), disks); err == nil {
		harness.Must(t, disks[0].CreateOverlay(t.TempDir()))
		fmt.Println("it has an overlay over", filepath.Base(filepath.Dir(filepath.Dir(disks[0].Base))))
	}
}

// The places of fields in the header of a sparse extent, with their sizes in bytes.
var sparseFields = map[string]struct{ at, size int64 }{
	"version": {4, 4}, "flags": {8, 4}, "capacity": {12, 8}, "grain size": {20, 8}, "descriptor": {28, 8}, "descriptor size": {36, 8},
	"entries of a table": {44, 4}, "second directory": {48, 8}, "directory": {56, 8}, "overhead": {64, 8}, "compression": {77, 2},
}

// hostileImages returns the changes that make an honest image hostile, by name.
func hostileImages(t *testing.T) map[string]func(vmdk string) error {
	t.Helper()
	all := map[string]func(vmdk string) error{}
	values := map[string][]uint64{
		"version":            {0, 2, 99},
		"flags":              {0, 1, math.MaxUint32},
		"capacity":           {1, 1 << 31, 1 << 41, 1 << 62, math.MaxUint64},
		"grain size":         {0, 1, 7, 1 << 20, 1 << 40, math.MaxUint64},
		"descriptor":         {0, 3, 1 << 40, math.MaxUint64},
		"descriptor size":    {0, 1, 1 << 40, math.MaxUint64},
		"entries of a table": {0, 1, 511, 1 << 20, math.MaxUint32},
		"second directory":   {0, 1, 1 << 40, math.MaxUint64},
		"directory":          {0, 1, 1 << 40, math.MaxUint64},
		"overhead":           {0, 1 << 40, math.MaxUint64},
		"compression":        {1, 99},
	}
	for field, list := range values {
		for _, v := range list {
			f := sparseFields[field]
			all[fmt.Sprintf("%s %#x", field, v)] = func(path string) error {
				return write(path, f.at, binary.LittleEndian.AppendUint64(nil, v)[:f.size])
			}
		}
	}
	all["capacity and directory"] = func(path string) error {
		return errors.Join(all["capacity 0x80000000"](path), all["directory 0x1"](path))
	}
	all["grain in every entry"] = everyEntry
	all["tables in every entry"] = sameTable
	for name, text := range map[string]string{
		"many extents":       extents(9000, `RW 8 SPARSE "e%d.vmdk"`),
		"one extent often":   extents(5000, `RW 8 FLAT "a, disk.vmdk" %d`),
		"huge flat extents":  extents(100, `RW 4294967296 FLAT "e%d.vmdk" 0`),
		"long line":          descriptor + `RW 8 FLAT "` + strings.Repeat("x", 900_000) + `" 0`,
		"many settings":      extents(20_000, `ddb.x%d = "1"`),
		"parent of itself":   descriptor + "parentCID=fffffffe\nparentFileNameHint=\"a, disk.vmdk\"\n" + `RW 2048 FLAT "e.vmdk" 0`,
		"self as its extent": descriptor + `RW 2048 SPARSE "a, disk.vmdk"`,
		"zero extents":       extents(9000, `RW 4294967296 ZERO`),
	} {
		all["descriptor: "+name] = func(path string) error { return os.WriteFile(path, []byte(text), 0o644) }
	}
	return all
}

const descriptor = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentSparse\"\n"

// extents returns a descriptor with n lines.
func extents(n int, line string) string {
	var b strings.Builder
	b.WriteString(descriptor)
	for i := range n {
		if strings.Contains(line, "%d") {
			fmt.Fprintf(&b, line+"\n", i)
		} else {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// everyEntry makes every entry of the grain tables lead to one grain: a few kilobytes claim to be the whole disk.
func everyEntry(path string) error {
	return rewrite(path, func(b []byte) {
		directory := binary.LittleEndian.Uint64(b[56:]) * 512
		table := uint64(binary.LittleEndian.Uint32(b[directory:])) * 512
		for i := uint64(0); i < 512 && table+i*4+4 <= uint64(len(b)); i++ {
			binary.LittleEndian.PutUint32(b[table+i*4:], uint32(binary.LittleEndian.Uint64(b[64:])))
		}
	})
}

// sameTable claims a disk of 1 TiB, all of whose grain tables are one.
func sameTable(path string) error {
	const capacity = 1 << 31 // sectors
	return rewrite(path, func(b []byte) {
		binary.LittleEndian.PutUint64(b[12:], capacity)
		directory := binary.LittleEndian.Uint64(b[56:]) * 512
		table := binary.LittleEndian.Uint32(b[directory:])
		for at := directory; at+4 <= uint64(len(b)); at += 4 {
			binary.LittleEndian.PutUint32(b[at:], table)
		}
	})
}

func rewrite(path string, change func(b []byte)) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	change(b)
	return os.WriteFile(path, bytes.Clone(b), 0o644)
}

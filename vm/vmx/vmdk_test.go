package vmx_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osx-builder/vm/vmx"

	"github.com/google/go-cmp/cmp"
)

// folder creates a folder with these files, and opens it.
func folder(t *testing.T, files map[string]string) *os.Root {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		at := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return openRoot(t, dir)
}

func openRoot(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// qemuImg runs qemu-img in dir and returns its output.
func qemuImg(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("qemu-img, which this test needs to create disks, is not installed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-img", args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("qemu-img %q: %v: %s", args, err, stderr.String())
	}
	return out
}

// makeDisk creates an empty VMDK of 5 GiB.
func makeDisk(t *testing.T, dir, subformat, name string) {
	t.Helper()
	if subformat != "streamOptimized" {
		qemuImg(t, dir, "create", "-q", "-f", "vmdk", "-o", "subformat="+subformat, name, "5G")
		return
	}
	qemuImg(t, dir, "create", "-q", "-f", "raw", "raw.img", "5G")
	qemuImg(t, dir, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat="+subformat, "raw.img", name)
}

var subformats = []string{"monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"}

// ReadVMDK and QEMU describe disks in the same way.
func TestReadVMDKAgreesWithQEMU(t *testing.T) {
	type qemuExtent struct {
		Filename string `json:"filename"`
		Size     int64  `json:"virtual-size"`
	}
	var info struct {
		Size     int64 `json:"virtual-size"`
		Specific struct {
			Data struct {
				CreateType string       `json:"create-type"`
				Extents    []qemuExtent `json:"extents"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	for _, subformat := range subformats {
		t.Run(subformat, func(t *testing.T) {
			dir := t.TempDir()
			makeDisk(t, dir, subformat, "disk.vmdk")
			if err := json.Unmarshal(qemuImg(t, dir, "info", "--output=json", "-f", "vmdk", "disk.vmdk"), &info); err != nil {
				t.Fatal(err)
			}
			v, err := vmx.ReadVMDK(openRoot(t, dir), "disk.vmdk")
			if err != nil {
				t.Fatal(err)
			}
			if v.Capacity != info.Size || v.Capacity != 5<<30 || v.CreateType != info.Specific.Data.CreateType || v.Parent != "" {
				t.Errorf("got %d bytes, type %s, parent %q, want %d, %s and none", v.Capacity, v.CreateType, v.Parent, info.Size, info.Specific.Data.CreateType)
			}
			var got []qemuExtent
			for _, e := range v.Extents {
				got = append(got, qemuExtent{e.File, e.Sectors * 512})
			}
			if diff := cmp.Diff(info.Specific.Data.Extents, got); diff != "" {
				t.Errorf("extents (-QEMU +got):\n%s", diff)
			}
		})
	}
}

func TestReadVMDKParent(t *testing.T) {
	dir := t.TempDir()
	makeDisk(t, dir, "monolithicSparse", "base.vmdk")
	for _, subformat := range []string{"monolithicSparse", "twoGbMaxExtentSparse"} {
		name := subformat + ".vmdk"
		qemuImg(t, dir, "create", "-q", "-f", "vmdk", "-o", "subformat="+subformat, "-b", "base.vmdk", "-F", "vmdk", name)
		v, err := vmx.ReadVMDK(openRoot(t, dir), name)
		if err != nil || v.Parent != "base.vmdk" {
			t.Errorf("%s: got parent %q, %v, want base.vmdk", subformat, v.Parent, err)
		}
	}
}

// text returns a descriptor of this type with more lines.
func text(createType string, lines ...string) string {
	return "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"" + createType + "\"\n" +
		strings.Join(lines, "\n") + "\n"
}

// childText returns the descriptor of a sparse disk that is based on one of [text].
func childText(parent string, lines ...string) string {
	lines = append([]string{`parentFileNameHint="` + parent + `"`}, lines...)
	return strings.Replace(text("monolithicSparse", lines...), "parentCID=ffffffff", "parentCID=fffffffe", 1)
}

// sparse returns the start of a sparse extent of 2048 sectors, with a descriptor if it is not empty.
func sparse(descriptor string) string {
	b := make([]byte, 512, 512+10240+512)
	copy(b, "KDMV")
	binary.LittleEndian.PutUint32(b[4:], 1)
	binary.LittleEndian.PutUint64(b[12:], 2048)
	binary.LittleEndian.PutUint64(b[20:], 128)
	binary.LittleEndian.PutUint32(b[44:], 512)
	binary.LittleEndian.PutUint64(b[56:], 21) // the directory, whose one entry is 0
	if descriptor != "" {
		binary.LittleEndian.PutUint64(b[28:], 1)
		binary.LittleEndian.PutUint64(b[36:], 20)
		b = append(b, descriptor...)
	}
	return string(b) + strings.Repeat("\x00", 512+10240+512-len(b))
}

func TestReadVMDKExtents(t *testing.T) {
	root := folder(t, map[string]string{"d.vmdk": text("vmfs",
		"# Extent description", "",
		`RW 10 FLAT "a b.vmdk" 7`, "RDONLY\t20\tSPARSE\t\"c.vmdk\"", "NOACCESS 30 ZERO", ` RW 40 VMFS "x-flat.vmdk"`+"\r",
		`ddb.comment = "say "hi""`)})
	v, err := vmx.ReadVMDK(root, "d.vmdk")
	if err != nil {
		t.Fatal(err)
	}
	want := []vmx.Extent{
		{Access: "RW", Type: "FLAT", File: "a b.vmdk", Sectors: 10, Offset: 7, HasOffset: true},
		{Access: "RDONLY", Type: "SPARSE", File: "c.vmdk", Sectors: 20},
		{Access: "NOACCESS", Type: "ZERO", Sectors: 30},
		{Access: "RW", Type: "VMFS", File: "x-flat.vmdk", Sectors: 40},
	}
	if diff := cmp.Diff(want, v.Extents); diff != "" || v.Capacity != 100*512 || v.Embedded {
		t.Errorf("capacity %d, embedded %v, extents (-want +got):\n%s", v.Capacity, v.Embedded, diff)
	}
}

func TestReadVMDKErrors(t *testing.T) {
	flat := `RW 2048 FLAT "f.vmdk" 0`
	edit := func(s string, offset int, value uint64) string {
		b := []byte(s)
		binary.LittleEndian.PutUint64(b[offset:], value)
		return string(b)
	}
	good := sparse(text("monolithicSparse", `RW 2048 SPARSE "d.vmdk"`))
	tests := map[string]struct {
		data    string
		hostile bool
	}{
		"nothing":                       {"", false},
		"qcow2":                         {"QFI\xfb\x00\x00\x00\x03" + strings.Repeat("\x00", 512), true},
		"raw":                           {strings.Repeat("\x00", 4096), true},
		"text of another kind":          {"root:x:0:0:root:/root:/bin/bash\n", true},
		"VDI":                           {strings.Repeat("\x00", 64) + "\x7f\x10\xda\xbe", true},
		"COWD":                          {"COWD" + strings.Repeat("\x00", 2048), false},
		"descriptor of 1 MiB":           {text("vmfs", flat) + strings.Repeat("#", 1<<20), false},
		"binary behind the text":        {text("vmfs", flat) + "\x00\x00x", false},
		"repeated text behind the text": {text("vmfs", flat) + "\x00" + flat + "\n", false},
		"10,001 extents":                {text("vmfs", strings.Repeat(flat+"\n", 10_001)), false},
		"more than 64 TiB":              {text("vmfs", strings.Repeat(`RW 68719476736 FLAT "f" 0`+"\n", 3)), false},
		"extent of more than 64 TiB":    {text("vmfs", `RW 137438953473 FLAT "f" 0`), false},
		"extents that overflow":         {text("vmfs", strings.Repeat(`RW 999999999999999999 FLAT "f" 0`+"\n", 10)), false},
		"offset of more than 64 TiB":    {text("vmfs", `RW 8 FLAT "f" 137438953473`), false},
		"extent of nothing":             {text("vmfs", `RW 0 FLAT "f" 0`), false},
		"flat without an offset":        {text("vmfs", `RW 2048 FLAT "f"`), false},
		"number run into the type":      {text("vmfs", `RW 2048FLAT "f" 0`), false},
		"extent over several lines":     {text("vmfs", "RW", "2048", "FLAT", `"/etc/passwd"`, "0"), false},
		"more behind the offset":        {text("vmfs", flat+" 1"), false},
		"extent behind a carriage":      {text("vmfs", "x=1\rRW 2048 FLAT \"f\" 0"), true},
		"extent behind a form feed":     {text("vmfs", "\f"+flat), true},
		"two parents":                   {text("vmfs", flat, `parentFileNameHint="a"`, `parentFileNameHint="b"`), false},
		"quote in the parent":           {text("vmfs", flat, `parentFileNameHint="a" "b"`), false},
		"cut short":                     {good[:300], false},
		"capacity 0, so QEMU goes on":   {edit(good, 12, 0), true},
		"capacity of more than 64 TiB":  {edit(good, 12, 1<<37+1), false},
		"version 4":                     {good[:4] + "\x04" + good[5:], false},
		"no descriptor":                 {sparse(""), false},
		"descriptor elsewhere":          {edit(good, 28, 15), false},
		"descriptor beyond everything":  {edit(good, 28, 1<<54), false},
		"descriptor of more than 1 MiB": {edit(good, 36, 1<<12), false},
		"no footer":                     {edit(good, 56, ^uint64(0)), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v, err := vmx.ReadVMDK(folder(t, map[string]string{"d.vmdk": tt.data}), "d.vmdk")
			refusal := (*vmx.CheckError)(nil)
			if !errors.As(err, &refusal) {
				t.Fatalf("got %+v, %v, want a CheckError", v, err)
			}
			if refusal.Unsafe() != tt.hostile || refusal.File != "d.vmdk" {
				t.Errorf("got %v, hostile %v, file %q, want hostile %v, file d.vmdk", err, refusal.Hostile, refusal.File, tt.hostile)
			}
		})
	}
	for name, data := range map[string]string{"good": good, "CID shortened by QEMU": text("vmfs", flat+"\nddb.x = \"0\"") + "\x000\"\n\x00\x00"} {
		if _, err := vmx.ReadVMDK(folder(t, map[string]string{"d.vmdk": data}), "d.vmdk"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

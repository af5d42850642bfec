package vmx_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osx-builder/vm/vmx"

	"pgregory.net/rapid"
)

// Check and QEMU read descriptors differently. This test combines lines that either may read as something else: of a
// disk that Check accepts, QEMU opens only the image's own files.
func TestQEMUOpensOnlyCheckedFiles(t *testing.T) {
	dir := t.TempDir()
	makeDisk(t, dir, "monolithicSparse", "base.vmdk")
	if err := os.WriteFile(filepath.Join(dir, "d-flat.vmdk"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "m.vmx"), []byte(machine("d.vmdk")), 0o600); err != nil {
		t.Fatal(err)
	}
	root := openRoot(t, dir)
	// Where QEMU would go, so that it is seen to have gone there.
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}

	piece := rapid.SampledFrom([]string{
		"RW", "RDONLY", "rw", " ", " ", " ", "\t", "\n", "\r", "\r\n", "\v", "\x00", "#", "8", "+8", "FLAT", "VMFS", "SPARSE", "ZERO",
		`"d-flat.vmdk"`, `"base.vmdk"`, `"` + outside + `"`, "0", "=", `"`, "parentFileNameHint", `parentFileNameHint="base.vmdk"`,
		`parentFileNameHint="` + outside + `"`, `createType="vmfs"`, "CID=1\n", "RW 8", "\nFLAT ", `RW 8 FLAT "` + outside + `" 0`, "RW 8 FLAT\n\"" + outside + "\" 0",
	})
	line := rapid.OneOf(
		rapid.SampledFrom([]string{
			"", "# comment", "version=1", `RW 8 FLAT "d-flat.vmdk" 0`, ` RW 4 VMFS "d-flat.vmdk"`, `RW 10485760 SPARSE "base.vmdk"`,
			`parentFileNameHint="base.vmdk"`, `ddb.adapterType = "ide"`,
		}),
		rapid.Map(rapid.SliceOfN(piece, 1, 8), func(p []string) string { return strings.Join(p, "") }),
	)
	passed := 0
	rapid.Check(t, func(rt *rapid.T) {
		lines := rapid.SliceOfN(line, 0, 4).Draw(rt, "lines")
		disk := text("monolithicFlat", append(lines, `RW 8 FLAT "d-flat.vmdk" 0`)...)
		if rapid.Bool().Draw(rt, "embedded") {
			disk = sparse(text("monolithicSparse", lines...))
		}
		if err := root.WriteFile("d.vmdk", []byte(disk), 0o600); err != nil {
			rt.Fatal(err)
		}
		if vmx.Check(root, "m.vmx") != nil {
			return
		}
		passed++
		for _, name := range qemuOpens(rt, dir) {
			if filepath.Dir(filepath.Join(dir, filepath.Base(name))) != filepath.Dir(name) && filepath.Dir(name) != "." {
				rt.Fatalf("QEMU opens %q of the disk %q", name, disk)
			}
		}
	})
	if passed == 0 {
		t.Error("no disk passed; the test shows nothing")
	}
}

// qemuOpens returns the names of the files that QEMU finds in d.vmdk, or none if QEMU cannot open it.
func qemuOpens(t *rapid.T, dir string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-img", "info", "-f", "vmdk", "--output=json", "d.vmdk")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return nil
	}
	var info struct {
		Backing  string `json:"full-backing-filename"`
		Specific struct {
			Data struct {
				Extents []struct {
					Filename string `json:"filename"`
				} `json:"extents"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		t.Fatal(err)
	}
	names := []string{}
	if info.Backing != "" {
		names = append(names, info.Backing)
	}
	for _, e := range info.Specific.Data.Extents {
		names = append(names, e.Filename)
	}
	return names
}

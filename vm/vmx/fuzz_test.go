package vmx_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"osx-builder/vm/vmx"
)

var settable = regexp.MustCompile(`^[A-Za-z0-9_.:-]+$`)

// values returns what the file says, by key.
func values(f *vmx.File) map[string]string {
	all := map[string]string{}
	for _, key := range f.Keys() {
		all[key], _ = f.Get(key)
	}
	return all
}

// Whatever a file holds, it comes back byte for byte, and setting one key
// changes what that key says and nothing else. Afterwards both of govix's
// parsers can be given the file.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"fusion.vmx", "workstation.vmx", "packer.vmx"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, "displayName", "x\"\nfirmware = \"bios")
	}
	f.Add([]byte("\xef\xbb\xbfa=b=c\r# d\r\n\"e"), "A", "|0A")
	f.Add([]byte("\vethernet0.present = \"TRME\"\n"), "a", "b")
	f.Add([]byte("ethernet0.wa\u212aeOnPcktRcv = \"maybe\"\n"), "a", "b")
	f.Fuzz(func(t *testing.T, data []byte, key, value string) {
		file, err := vmx.Parse(data)
		if err != nil {
			return
		}
		if got := file.Bytes(); !bytes.Equal(got, data) {
			t.Fatalf("Bytes: got %q, want %q", got, data)
		}
		want := values(file)
		if err := file.Set(key, value); err == nil {
			if !settable.MatchString(key) {
				t.Fatalf("Set took the key %q", key)
			}
			want[strings.ToLower(key)] = value
			if was, is := without(t, data, key), without(t, file.Bytes(), key); !bytes.Equal(was, is) {
				t.Fatalf("Set(%q, %q) changed other lines: got %q, want %q", key, value, is, was)
			}
		} else if settable.MatchString(key) && !strings.Contains(value, "\x00") && len(data)+3*len(value)+len(key) < 1<<19 {
			t.Fatalf("Set(%q, %q): %v", key, value, err)
		}
		again, err := vmx.Parse(file.Bytes())
		if err != nil {
			t.Fatalf("reading %q again: %v", file.Bytes(), err)
		}
		sameValues(t, want, values(again))

		dropped := again.Plain()
		readableByGovix(t, again.Bytes())
		if len(again.Plain()) > 0 {
			t.Fatalf("a second Plain of %q, which dropped %q, drops more", again.Bytes(), dropped)
		}
	})
}

// without is a file without a key's lines and without its last line's end,
// which it gets when a line is added.
func without(t *testing.T, data []byte, key string) []byte {
	t.Helper()
	f, err := vmx.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	f.Delete(key)
	return bytes.TrimRight(f.Bytes(), "\r\n")
}

func sameValues(t *testing.T, want, got map[string]string) {
	t.Helper()
	for key, value := range want {
		if have, ok := got[key]; !ok || have != value {
			t.Fatalf("%s: got %q, %v, want %q", key, have, ok, value)
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			t.Fatalf("the key %q came from nowhere", key)
		}
	}
}

// Whatever a file describes, Disarm leaves the machine as it was but for its
// leftovers, of which there are none after it.
func FuzzHardware(f *testing.F) {
	for _, name := range []string{"fusion.vmx", "workstation.vmx", "packer.vmx"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := vmx.Parse(data)
		if err != nil {
			return
		}
		before, err := file.Hardware()
		if err != nil {
			if refusal := (*vmx.CheckError)(nil); !errors.As(err, &refusal) {
				t.Fatalf("got %v, want a CheckError", err)
			}
			return
		}
		if lines := file.Disarm(); !slices.Equal(lines, before.Leftovers) {
			t.Fatalf("Disarm: got %q, want %q", lines, before.Leftovers)
		}
		again, err := vmx.Parse(file.Bytes())
		if err != nil {
			t.Fatalf("reading %q again: %v", file.Bytes(), err)
		}
		after, err := again.Hardware()
		if err != nil || len(after.Leftovers) > 0 || !slices.Equal(after.Disks, before.Disks) || !slices.Equal(after.NICs, before.NICs) {
			t.Fatalf("the machine became %+v, %v, was %+v", after, err, before)
		}
	})
}

// Whatever a disk file holds, what is made of it is within bounds.
func FuzzReadVMDK(f *testing.F) {
	f.Add([]byte(text("monolithicFlat", goodExtent)))
	f.Add([]byte(sparse(text("streamOptimized", `RDONLY 2048 SPARSE "x.vmdk"`))))
	f.Add([]byte(movedDescriptor()))
	dir := f.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { root.Close() })
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := root.WriteFile("d.vmdk", data, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := vmx.ReadVMDK(root, "d.vmdk")
		if err != nil {
			if refusal := (*vmx.CheckError)(nil); !errors.As(err, &refusal) {
				t.Fatalf("got %v, want a CheckError", err)
			}
			return
		}
		if v.Capacity < 0 || v.Capacity > 64<<40 || len(v.Extents) > 10_000 {
			t.Fatalf("got %d bytes in %d extents", v.Capacity, len(v.Extents))
		}
		for _, e := range v.Extents {
			if e.Sectors <= 0 || e.Offset < 0 || (e.Offset+e.Sectors)*512 <= 0 {
				t.Fatalf("got the extent %+v", e)
			}
		}
	})
}

// An image that passes names no file but its own, however its two text files
// look, and Check leaves the folder as it was.
func FuzzCheck(f *testing.F) {
	f.Add([]byte(machine("d.vmdk")), []byte(text("monolithicFlat", goodExtent)))
	f.Add([]byte(machine("d.vmdk", "nvram = m.nvram")), []byte(sparse(text("streamOptimized", `parentFileNameHint="e.vmdk"`))))
	f.Add([]byte(machine("/etc/shadow")), []byte(text("vmfs", `RW 8 VMFS "/etc/shadow"`)))
	f.Fuzz(func(t *testing.T, config, disk []byte) {
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		files := map[string][]byte{"m.vmx": config, "d.vmdk": disk, "d-flat.vmdk": make([]byte, 4096), "e.vmdk": []byte(sparse(text("monolithicSparse")))}
		for name, data := range files {
			if err := root.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err = vmx.Check(root, "m.vmx")
		entries, _ := fs.ReadDir(root.FS(), ".")
		if len(entries) != len(files) {
			t.Fatalf("the folder holds %v", entries)
		}
		if err != nil {
			if refusal := (*vmx.CheckError)(nil); !errors.As(err, &refusal) || refusal.Error() == "" {
				t.Fatalf("got %v, want a CheckError", err)
			}
			return
		}
		file, err := vmx.Parse(config)
		if err != nil {
			t.Fatal(err)
		}
		h, err := file.Hardware()
		if err != nil || len(h.Disks) == 0 {
			t.Fatalf("passed: %+v, %v", h, err)
		}
		for _, d := range h.Disks {
			own(t, files, d.File)
			v, err := vmx.ReadVMDK(root, filepath.ToSlash(filepath.Clean(d.File)))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range v.Extents {
				own(t, files, e.File)
			}
			if v.Parent != "" {
				own(t, files, v.Parent)
			}
		}
	})
}

// own fails the test if a name that passed is not that of one of the files.
func own(t *testing.T, files map[string][]byte, name string) {
	t.Helper()
	if _, ok := files[filepath.Clean(name)]; !ok || strings.Contains(name, "..") {
		t.Fatalf("passed with the file %q", name)
	}
}

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

// values returns the file's values by key.
func values(f *vmx.File) map[string]string {
	all := map[string]string{}
	for _, key := range f.Keys() {
		all[key], _ = f.Get(key)
	}
	return all
}

// Bytes returns any file byte for byte, and Set changes one key and nothing else. After Normalize both parsers of govix
// can read the file.
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

		removed := again.Normalize()
		readableByGovix(t, again.Bytes())
		if len(again.Normalize()) > 0 {
			t.Fatalf("a second Normalize of %q, which removed %q, removes more", again.Bytes(), removed)
		}
	})
}

// without returns a file without the lines of a key and without the terminator of the last line, which a new line adds.
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

// DisableHostAccess disables all access to the host, and changes nothing else of the machine.
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
		if lines := file.DisableHostAccess(); !slices.Equal(lines, before.HostAccess) {
			t.Fatalf("DisableHostAccess: got %q, want %q", lines, before.HostAccess)
		}
		again, err := vmx.Parse(file.Bytes())
		if err != nil {
			t.Fatalf("reading %q again: %v", file.Bytes(), err)
		}
		after, err := again.Hardware()
		if err != nil || len(after.HostAccess) > 0 || !slices.Equal(after.Disks, before.Disks) || !slices.Equal(after.NICs, before.NICs) {
			t.Fatalf("the machine became %+v, %v, was %+v", after, err, before)
		}
	})
}

// The description of any disk file is within the limits.
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

// An image that Check accepts names only its own files, whatever its two text files contain. Check does not change the
// folder.
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
			checkOwnFile(t, files, d.File)
			v, err := vmx.ReadVMDK(root, filepath.ToSlash(filepath.Clean(d.File)))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range v.Extents {
				checkOwnFile(t, files, e.File)
			}
			if v.Parent != "" {
				checkOwnFile(t, files, v.Parent)
			}
		}
	})
}

// checkOwnFile fails the test if an accepted name is not that of one of the files.
func checkOwnFile(t *testing.T, files map[string][]byte, name string) {
	t.Helper()
	if _, ok := files[filepath.Clean(name)]; !ok || strings.Contains(name, "..") {
		t.Fatalf("passed with the file %q", name)
	}
}

package ovf_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"osx-builder/vm/vmx"
	"osx-builder/vm/vmx/ovf"
)

// memory are the files of an image that fuzzing unpacks.
type memory struct{ root *os.Root }

func (m memory) Root() *os.Root { return m.root }

func (m memory) Find(name string) (string, bool) {
	entries, _ := fs.ReadDir(m.root.FS(), ".")
	for _, e := range entries {
		if strings.EqualFold(e.Name(), name) {
			return e.Name(), true
		}
	}
	return "", false
}

func (m memory) Stored(raw string) string { return raw }

func (m memory) Remove(name string) error { return m.root.Remove(name) }

func (m memory) Create(name string, body io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(body, 1<<20))
	if err == nil && strings.ContainsAny(name, "/\x00") {
		err = &vmx.CheckError{File: name, Reason: "the name has a slash"}
	}
	if err == nil {
		err = m.root.WriteFile(name, data, 0o600)
	}
	return err
}

// Whatever a package says, Prepare fails with an error about the image, or what it makes passes Check or is refused by it
// with one.
func FuzzPrepare(f *testing.F) {
	f.Add([]byte(description(reference, oneDisk, plain(), "")), []byte(manifest(entry{"disk1.vmdk", "x"}).body))
	f.Add([]byte(description(`<File ovf:id="file1" ovf:href="disk1.vmdk" ovf:compression="gzip" ovf:chunkSize="1"/>`, oneDisk, plain(), "")), []byte(""))
	f.Add([]byte(description("", `<Disk ovf:diskId="vmdisk1" ovf:capacity="40" ovf:capacityAllocationUnits="byte * 2^30"/>`, plain(), "")), []byte(""))
	f.Fuzz(func(t *testing.T, config, digests []byte) {
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		for name, data := range map[string][]byte{"a.ovf": config, "a.mf": digests, "disk1.vmdk": bytes.Repeat([]byte("x"), 4096), "disk1.vmdk.000000000": []byte("x")} {
			if err := root.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		name, err := ovf.Prepare(t.Context(), memory{root}, "a.ovf")
		if err == nil {
			err = vmx.Check(root, name)
		}
		if refusal := (*vmx.CheckError)(nil); err != nil && !errors.As(err, &refusal) {
			t.Fatalf("got %v, want a CheckError", err)
		}
	})
}

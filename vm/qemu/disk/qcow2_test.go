package disk_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"osx-builder/vm"
	"osx-builder/vm/qemu/process"
)

// A QEMU that a guest took over can write anything into the header of its overlay. Nothing that makes the next QEMU open
// another file, or a file in the place of the overlay, is accepted. What an honest QEMU writes is.
func TestHostileOverlay(t *testing.T) {
	folder := vmdk(t, filepath.Join(t.TempDir(), "gold", "sha256-aa"), "monolithicSparse")
	d := readLayers(t, folder)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(path string) error
		want   string // part of the message, or "" for success
	}{
		"as created":           {func(string) error { return nil }, ""},
		"not closed":           {patch(72, uint64(1)), ""},
		"data file":            {patch(72, uint64(4)), "incompatible features 0x4"},
		"data file, extension": {extend(0x44415441, secret), "header extension 0x44415441"},
		"both":                 {both(patch(72, uint64(4)), extend(0x44415441, secret)), "incompatible features 0x4"},
		"corrupt":              {patch(72, uint64(2)), "incompatible features 0x2"},
		"extended L2":          {patch(72, uint64(1<<4)), "incompatible features 0x10"},
		"unknown feature":      {patch(72, uint64(1<<63)), "incompatible features"},
		"autoclear":            {patch(88, uint64(2)), "autoclear features 0x2"},
		"bitmaps":              {extend(0x23852875, "x"), "header extension 0x23852875"},
		"crypto":               {extend(0x0537be77, "x"), "header extension 0x537be77"},
		"unknown extension":    {extend(0x11223344, secret), "header extension 0x11223344"},
		"long extension":       {patch(116, uint32(1<<20)), "longer than the header"},
		"other backing file":   {text(secret), "backing file is not the image's"},
		"json backing file":    {text(`json:{"driver":"file","filename":"` + secret + `"}`), "backing file is not the image's"},
		"no backing file":      {patch(16, uint32(0)), "backing file is not the image's"},
		"backing file far off": {patch(8, uint64(1<<40)), "backing file is not the image's"},
		"backing format":       {patch(120, uint32(0x72617720)), "format is \"raw \""},
		"long header":          {patch(100, uint32(1<<30)), "header claims"},
		"encrypted":            {patch(32, uint32(1)), "encrypted"},
		"snapshots":            {patch(60, uint32(1)), "1 internal snapshots"},
		"version 2":            {patch(4, uint32(2)), "version 2"},
		"raw":                  {patch(0, uint32(0)), "magic 0x0"},
		"larger":               {patch(24, uint64(1<<50)), "its disk has"},
		"empty":                {func(path string) error { return os.Truncate(path, 0) }, "too short"},
		"symbolic link":        {replace(secret, os.Symlink), "replaced"},
		"hard link":            {replace(secret, os.Link), "replaced"},
		"folder":               {replace("", func(_, path string) error { return os.Mkdir(path, 0o700) }), "is a directory"},
		"pipe":                 {replace("", func(_, path string) error { return mkfifo(path) }), "replaced"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := d.CreateOverlay(dir); err != nil {
				t.Fatal(err)
			}
			if err := test.change(filepath.Join(dir, d.Overlay)); err != nil {
				t.Fatal(err)
			}
			var files process.Files
			defer files.Close()
			_, err := d.Blockdev("disk0", dir, &files)
			var e *vm.Error
			switch {
			case test.want == "" && err != nil:
				t.Errorf("got %v, want no error", err)
			case test.want == "":
			case err == nil || !strings.Contains(err.Error(), test.want):
				t.Errorf("got %v, want an error with %q", err, test.want)
			case errors.As(err, &e) && (!strings.Contains(e.Message, filepath.Join(dir, d.Overlay)) || !strings.Contains(e.Message, "create it again")):
				t.Errorf("got message %q, want the file and the way out", e.Message)
			}
		})
	}
	outside := d
	outside.Overlay = "../disk0.qcow2"
	if _, err := outside.Blockdev("disk0", t.TempDir(), &process.Files{}); err == nil || !strings.Contains(err.Error(), "leads out") {
		t.Errorf("got %v for an overlay outside the machine's folder, want an error", err)
	}
}

// patch writes a number into the header.
func patch(offset int64, value any) func(path string) error {
	return func(path string) error {
		b, err := binary.Append(nil, binary.BigEndian, value)
		if err != nil {
			return err
		}
		return write(path, offset, b)
	}
}

// extend makes the first header extension, which names the backing file's format, one of another kind.
func extend(kind uint32, data string) func(path string) error {
	return func(path string) error {
		b := binary.BigEndian.AppendUint32(nil, kind)
		b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
		b = append(b, data...)
		b = append(b, make([]byte, 16+(8-len(data)%8)%8)...) // padding, and the end of the extensions
		return write(path, 112, b)
	}
}

// text replaces the name of the backing file.
func text(name string) func(path string) error {
	return func(path string) error {
		return errors.Join(write(path, 512, []byte(name)), patch(16, uint32(len(name)))(path))
	}
}

func both(first, second func(path string) error) func(path string) error {
	return func(path string) error { return errors.Join(first(path), second(path)) }
}

// replace puts something else into the place of the overlay.
func replace(target string, create func(target, path string) error) func(path string) error {
	return func(path string) error { return errors.Join(os.Remove(path), create(target, path)) }
}

func write(path string, offset int64, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(b, offset)
	return err
}

func mkfifo(path string) error { return unix.Mkfifo(path, 0o600) }

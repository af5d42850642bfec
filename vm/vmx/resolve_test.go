package vmx_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"

	"osx-builder/image"
	"osx-builder/vm/vmx"
)

// unpacked packs files into a zip archive, with their names as they are, and unpacks it as the daemon does.
func unpacked(t *testing.T, files map[string]string) (*os.Root, string, error) {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range files {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, NonUTF8: true})
		if err == nil {
			_, err = w.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b.Bytes()) }))
	t.Cleanup(s.Close)
	dir := t.TempDir()
	c, err := image.Open(dir, image.Options{
		Prepare: func(_ context.Context, f *image.Files, name string) (string, error) {
			return name, vmx.Resolve(f, name)
		},
		Check: vmx.Check, Limits: image.Limits{FreeBytes: -1},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error { return os.Chmod(path, 0o700) })
	})
	sum := sha256.Sum256(b.Bytes())
	g, err := c.Ensure(t.Context(), image.Source{URL: s.URL, Sum: image.Sum{Type: "sha256", Hex: hex.EncodeToString(sum[:])}}, nil)
	if err != nil {
		return nil, "", err
	}
	return openRoot(t, filepath.Dir(g.VMX)), filepath.Base(g.VMX), nil
}

// encoded returns text in an encoding.
func encoded(t *testing.T, e encoding.Encoding, text string) string {
	t.Helper()
	if e == nil {
		return text
	}
	raw, err := e.NewEncoder().String(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// splitDisk returns an image of a split flat disk, whose .vmx, descriptor and extent have these names. Its archive and its
// files are in encodings, of which the files name one.
func splitDisk(t *testing.T, archive, text encoding.Encoding, declared, name string) map[string]string {
	t.Helper()
	config, disk := machine(name+".vmdk"), strings.Replace(text1(name), "version=1", "version=1\nencoding=\""+declared+"\"", 1)
	if declared != "" {
		config = ".encoding = \"" + declared + "\"\n" + config
	}
	return map[string]string{
		encoded(t, archive, name+".vmx"):       encoded(t, text, config),
		encoded(t, archive, name+".vmdk"):      encoded(t, text, disk),
		encoded(t, archive, name+"-f001.vmdk"): strings.Repeat("x", 4096),
	}
}

func text1(name string) string { return text("twoGbMaxExtentFlat", `RW 8 FLAT "`+name+`-f001.vmdk" 0`) }

// A machine whose files are in a code page of its host, or whose names differ from those that it writes, is found.
func TestResolve(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"GBK":                        splitDisk(t, simplifiedchinese.GBK, simplifiedchinese.GBK, "GBK", "虚拟机 磁盘"),
		"GBK, names in UTF-8":        splitDisk(t, nil, simplifiedchinese.GBK, "windows-936-2000", "虚拟机"),
		"UTF-8, names in GBK":        splitDisk(t, simplifiedchinese.GBK, nil, "UTF-8", "虚拟机"),
		"Korean, ICU name":           splitDisk(t, korean.EUCKR, korean.EUCKR, "windows-949-2000", "가상 머신"),
		"Japanese, backslash in one": splitDisk(t, japanese.ShiftJIS, japanese.ShiftJIS, "Shift_JIS", "表ソ"),
		"windows-1252":               splitDisk(t, nil, charmap.Windows1252, "windows-1252", "Übung"),
		"windows-1252, by Explorer":  splitDisk(t, charmap.CodePage850, charmap.Windows1252, "ibm-5348_P100-1997", "Übung"),
		"windows-1252, not declared": splitDisk(t, nil, charmap.Windows1252, "", "Übung"),
		"windows-1251":               splitDisk(t, charmap.CodePage866, charmap.Windows1251, "windows-1251", "Диск"),
		"decomposed Unicode":         {"m.vmx": machine("\u00dcbung.vmdk"), "U\u0308bung.vmdk": text1("\u00dcbung"), "U\u0308bung-f001.vmdk": strings.Repeat("x", 4096)},
		"letter case": {
			"m.vmx": machine("Disk.VMDK", `nvram = "M.NVRAM"`), "disk.vmdk": text1("DISK"), "disk-F001.vmdk": strings.Repeat("x", 4096), "m.nvram": "x",
			"M.vmsd": `snapshot0.disk0.fileName = "DISK.vmdk"`,
		},
		"backslashes": {"a/m.vmx": machine(`disks\d.vmdk`), "a/disks/d.vmdk": text("twoGbMaxExtentFlat", `RW 8 FLAT "parts\f.vmdk" 0`), "a/disks/parts/f.vmdk": strings.Repeat("x", 4096)},
		"parent in another case": {
			"m.vmx": machine("c.vmdk"), "c.vmdk": sparse(childText("BASE.vmdk")), "base.vmdk": sparse(text("monolithicSparse")),
		},
		"VMFS with offset 0": with(flat(`RW 8 VMFS "d-flat.vmdk" 0`), map[string]string{"d.vmdk": text("vmfs", `RW 8 VMFS "d-flat.vmdk" 0`)}),
		"VMFS with offset 4": with(flat(), map[string]string{"d.vmdk": text("vmfs", `RW 4 VMFS "d-flat.vmdk" 4`)}),
	} {
		t.Run(name, func(t *testing.T) {
			root, config, err := unpacked(t, files)
			if err != nil {
				t.Fatal(err)
			}
			f, err := vmx.Parse([]byte(readAll(t, root, config)))
			if err != nil {
				t.Fatal(err)
			}
			h, err := f.Hardware()
			if err != nil || len(h.Disks) != 1 {
				t.Fatalf("got %+v, %v, want one disk", h.Disks, err)
			}
			// QEMU opens every file under the name that it finds.
			qemuImg(t, root.Name(), "info", "-f", "vmdk", h.Disks[0].File)
			if h.NVRAM != "" {
				readAll(t, root, h.NVRAM)
			}
			v, err := vmx.ReadVMDK(root, path.Clean(h.Disks[0].File))
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(name, "VMFS") && !bytes.Equal(qemuContents(t, root, h.Disks[0].File), []byte(strings.Repeat("x", int(v.Capacity)))) {
				t.Error("QEMU reads other data")
			}
		})
	}
}

func readAll(t *testing.T, root *os.Root, name string) string {
	t.Helper()
	data, err := root.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func qemuContents(t *testing.T, root *os.Root, name string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.img")
	qemuImg(t, root.Name(), "convert", "-f", "vmdk", "-O", "raw", name, out)
	return readFile(t, out)
}

// What Resolve does not find stays what it was, and is refused with its name.
func TestResolveFindsOnlyWhatTheImageHas(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		want  error
		text  string
	}{
		"disk on a drive":    {with(flat(goodExtent), map[string]string{"m.vmx": machine(`C:\d.vmdk`)}), image.ErrUnsafe, "C:"},
		"disk on a share":    {with(flat(goodExtent), map[string]string{"m.vmx": machine(`\\server\d.vmdk`)}), image.ErrUnsafe, "server"},
		"disk above":         {with(flat(goodExtent), map[string]string{"m.vmx": machine(`..\d.vmdk`)}), image.ErrUnsafe, ".."},
		"no such file":       {with(flat(goodExtent), map[string]string{"m.vmx": machine(`x\d.vmdk`)}), image.ErrInvalid, "forward slashes"},
		"unknown encoding":   {with(flat(goodExtent), map[string]string{"m.vmx": ".encoding = \"x-klingon\"\n" + machine("\xd0\xe9.vmdk")}), image.ErrInvalid, "x-klingon"},
		"text in another":    {with(flat(goodExtent), map[string]string{"m.vmx": ".encoding = \"GBK\"\n" + machine("\xff\xff.vmdk")}), image.ErrInvalid, "not in the encoding"},
		"extent on a drive":  {flat(`RW 8 FLAT "D:\d-flat.vmdk" 0`), image.ErrUnsafe, "D:"},
		"a folder as a disk": {map[string]string{"m.vmx": machine("D.vmdk"), "d.vmdk/x": "x"}, image.ErrInvalid, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := unpacked(t, tt.files)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v that says %q", err, tt.want, tt.text)
			}
		})
	}
}

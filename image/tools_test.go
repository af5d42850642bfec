package image_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/image"
)

// ensure unpacks an archive and returns the gold image.
func ensure(t testing.TB, b []byte, change ...func(*image.Options)) image.Gold {
	t.Helper()
	c, _ := open(t, change...)
	url, _ := serve(t, b)
	g, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, b)}, nil)
	must(t, err)
	return g
}

// pack runs a command line in dir, which writes the file out. Its tools are installed by make test.
func pack(t *testing.T, dir, out, script string) {
	t.Helper()
	tool, _, _ := strings.Cut(script, " ")
	if _, err := exec.LookPath(tool); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("this test packs with %s: %v", tool, err)
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "OUT="+out)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// A machine's folder, packed by the tools that people have, is the same machine. ditto, the Finder, Explorer and
// PowerShell do not run here; TestArchivesOfOtherSystems has what they write.
func TestArchivesOfRealTools(t *testing.T) {
	files := []file{vmx("my mac/my mac.vmx"), {name: "my mac/disk.vmdk", body: append(noise(200_000, 1), make([]byte, 300_000)...)}, {name: "my mac/Übung.txt", body: []byte("x")}}
	dir := t.TempDir()
	for _, f := range files {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, f.name)), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, f.name), f.body, 0o600))
	}
	linked := append([]file{{name: "my mac/copy.vmdk", body: files[1].body}}, files...)
	must(t, os.Link(filepath.Join(dir, files[1].name), filepath.Join(dir, "my mac/copy.vmdk")))
	for script, want := range map[string][]file{
		"tar -czf $OUT 'my mac'":                                                     linked,
		"tar --format=v7 -cf $OUT 'my mac'":                                          linked,
		"tar --format=posix -cJf $OUT 'my mac'":                                      linked,
		"tar --sparse -cf $OUT 'my mac'":                                             linked,
		"tar --label=backup -cjf $OUT 'my mac'":                                      linked,
		"tar -cf $OUT 'my mac' 'my mac/disk.vmdk'":                                   linked,
		"tar --listed-incremental=$OUT.snar -cf $OUT 'my mac'":                       linked,
		"tar -b 512 -cf - 'my mac' | gzip >$OUT":                                     linked,
		"tar -czf $OUT 'my mac'; head -c 10240 /dev/zero >>$OUT":                     linked,
		"tar -cf $OUT 'my mac' && tar -rf $OUT 'my mac/disk.vmdk'":                   linked,
		"tar -cf - 'my mac' | pzstd -q -c >$OUT":                                     linked,
		"tar -cf - 'my mac' | zstd -q --long=27 -c >$OUT":                            linked,
		"tar -cf - 'my mac' | xz --lzma2=dict=128MiB -c >$OUT":                       linked,
		"bsdtar --format=pax -czf $OUT 'my mac'":                                     linked,
		"bsdtar --format=ustar --zstd -cf $OUT 'my mac'":                             linked,
		"bsdtar --format=zip -cf $OUT 'my mac'":                                      linked,
		"zip -qr - 'my mac' >$OUT":                                                   linked,
		"zip -qr0 $OUT.zip 'my mac' && mv $OUT.zip $OUT":                             linked,
		"zip -qr -Z bzip2 $OUT.zip 'my mac' && mv $OUT.zip $OUT":                     linked,
		"7z a -bd -tzip $OUT 'my mac'":                                               linked,
		"7z a -bd -tzip -mm=BZip2 $OUT 'my mac'":                                     linked,
		"7z a -bd -tzip -mm=LZMA $OUT 'my mac'":                                      linked,
		"7z a -bd -tzip -mm=LZMA -mx=9 -md=128m $OUT 'my mac'":                       linked,
		"bsdtar --format=zip --options zip:compression=deflate -cf $OUT 'my mac'":    linked,
		"7z a -bd -ttar $OUT 'my mac'":                                               linked,
		"7z a -bd -ttar $OUT.tar 'my mac' && 7z a -bd -tgzip $OUT $OUT.tar":          linked,
		"7z a -bd -ttar $OUT.tar 'my mac' && 7z a -bd -tbzip2 $OUT $OUT.tar":         linked,
		"7z a -bd -ttar $OUT.tar 'my mac' && 7z a -bd -txz $OUT $OUT.tar":            linked,
		"tar -cf $OUT --exclude copy.vmdk 'my mac' && gzip $OUT && mv $OUT.gz $OUT":  files,
		"tar --numeric-owner --format=oldgnu --exclude copy.vmdk -czf $OUT 'my mac'": files,
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			folder, err := os.MkdirTemp(t.TempDir(), "")
			must(t, err)
			out := filepath.Join(folder, "image.dat")
			pack(t, dir, out, script)
			b, err := os.ReadFile(out)
			must(t, err)
			wantFiles(t, ensure(t, b), want)
		})
	}
}

// A zip whose method is not read is refused with the method's name and with a way to pack it that is.
func TestZipMethodsThatAreNotRead(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "m.vmx"), bytes.Repeat([]byte("displayName = \"m\"\n"), 1000), 0o600))
	const window = 30 + len("m.vmx") + 5 // where the header of LZMA has it in the first entry
	for method, words := range map[string]string{
		"-mm=Deflate64": "Deflate64, which Windows Explorer uses for large files",
		"-mm=PPMd":      "method 98 (PPMd)",
		"-mm=LZMA":      "window of more than 128 MiB",
	} {
		out := filepath.Join(t.TempDir(), "image.zip")
		pack(t, dir, out, "7z a -bd -tzip "+method+" $OUT m.vmx")
		b, err := os.ReadFile(out)
		must(t, err)
		if method == "-mm=LZMA" {
			binary.LittleEndian.PutUint32(b[window:], 256<<20)
		}
		c, data := open(t)
		url, _ := serve(t, b)
		_, err = c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, b)}, nil)
		if !errors.Is(err, image.ErrInvalid) || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), "7-Zip with the method Deflate") {
			t.Errorf("7z %s: got %v, want %v with %q and the way out", method, err, image.ErrInvalid, words)
		}
		wantEmpty(t, data)
	}
}

// Tapes and some programs leave zeroes behind the end of an archive. zstd does not accept them.
func TestPaddingBehindTheEnd(t *testing.T) {
	files := someFiles()
	plain := tarOf(t, files...)
	for form, b := range map[string][]byte{"tar": plain, "gzip": gzipOf(t, plain), "bzip2": bzip2Of(t, plain), "xz": xzOf(t, plain)} {
		for _, n := range []int{4, 512, 100_000} {
			wantFiles(t, ensure(t, append(bytesOf(b), make([]byte, n)...)), files)
		}
		if form == "gzip" {
			wantFiles(t, ensure(t, append(gzipOf(t, plain[:1000]), append(gzipOf(t, plain[1000:]), make([]byte, 3)...)...)), files)
		}
		c, dir := open(t)
		b = append(append(bytesOf(b), make([]byte, 5000)...), "rubbish"...)
		url, _ := serve(t, b)
		if _, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, b)}, nil); !isInvalid(err) {
			t.Errorf("%s with something behind its end: got %v, want %v", form, err, image.ErrInvalid)
		}
		wantEmpty(t, dir)
	}
}

func isInvalid(err error) bool {
	return err != nil && hasKind(err) && strings.Contains(fmt.Sprint(err), "archive")
}

// entryOf is an entry of a zip archive as another system writes it.
type entryOf struct {
	name  string
	body  string
	host  uint16 // of the upper byte of "version made by"
	extra []byte
	attrs uint32
}

func zipFrom(t testing.TB, entries ...entryOf) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{
			Name: e.name, NonUTF8: true, Method: zip.Store, CreatorVersion: e.host << 8, Extra: e.extra, ExternalAttrs: e.attrs,
			CRC32: crc32.ChecksumIEEE([]byte(e.body)), CompressedSize64: uint64(len(e.body)), UncompressedSize64: uint64(len(e.body)),
		}
		w, err := z.CreateRaw(h)
		must(t, err)
		_, err = w.Write([]byte(e.body))
		must(t, err)
	}
	must(t, z.Close())
	return b.Bytes()
}

// unicodePath is the extra field in which Info-ZIP and 7-Zip write a name in UTF-8.
func unicodePath(raw, name string) []byte {
	b := binary.LittleEndian.AppendUint16(nil, 0x7075)
	b = binary.LittleEndian.AppendUint16(b, uint16(5+len(name)))
	b = binary.LittleEndian.AppendUint32(append(b, 1), crc32.ChecksumIEEE([]byte(raw)))
	return append(b, name...)
}

// What PowerShell, Explorer, the Finder and others write, entry by entry.
func TestArchivesOfOtherSystems(t *testing.T) {
	config := string(vmx("").body)
	fork := file{name: "mac/._.", body: []byte("fork")}
	for title, tt := range map[string]struct {
		archive []byte
		want    []file
	}{
		"PowerShell": {zipFrom(t, entryOf{name: `mac\`}, entryOf{name: `mac\a.vmx`, body: config}, entryOf{name: `mac\deep\disk.vmdk`, body: "disk"}), []file{vmx("mac/a.vmx"), {name: "mac/deep/disk.vmdk", body: []byte("disk")}}},
		"DOS":        {zipFrom(t, entryOf{name: "LABEL", attrs: 0x08}, entryOf{name: "mac", attrs: 0x10}, entryOf{name: "mac/a.vmx", body: config}), []file{vmx("mac/a.vmx")}},
		"Finder": {zipFrom(
			t, entryOf{name: "mac/", host: 3}, entryOf{name: "mac/a.vmx", body: config, host: 3}, entryOf{name: "mac/Icon\r", host: 3},
			entryOf{name: "__MACOSX/", host: 3}, entryOf{name: "__MACOSX/mac/._a.vmx", body: "fork", host: 3}, entryOf{name: "__MACOSX/mac/._Icon\r", body: "fork", host: 3},
			entryOf{name: "mac/.DS_Store", body: "view", host: 3}, entryOf{name: "mac/__MACOSX/b.vmx", body: "fork", host: 3},
		), []file{vmx("mac/a.vmx")}},
		"tar of macOS":                   {gzipOf(t, tarOf(t, file{name: "./._.", body: []byte("fork")}, file{name: "./._mac", body: []byte("fork")}, fork, file{name: "mac/Icon\r"}, file{name: "mac/._Icon\r", body: []byte("fork")}, vmx("mac/a.vmx"))), []file{vmx("mac/a.vmx")}},
		"link to a fork's name":          {tarOf(t, vmx("mac/a.vmx"), file{name: "mac/._l", hdr: typed(tar.TypeSymlink, "a")}), []file{vmx("mac/a.vmx")}},
		"old zip, name also in UTF-8":    {zipFrom(t, entryOf{name: "a.vmx", body: config}, entryOf{name: "\x81bung", body: "x", extra: unicodePath("\x81bung", "übung")}), []file{vmx("a.vmx"), {name: "übung", body: []byte("x")}}},
		"old zip, UTF-8 name of another": {zipFrom(t, entryOf{name: "a.vmx", body: config}, entryOf{name: "\x81bung", body: "x", extra: unicodePath("other", "../x")}), []file{vmx("a.vmx"), {name: "übung", body: []byte("x")}}},
		"names in GBK":                   {zipFrom(t, entryOf{name: "\xd0\xe9\xc4\xe2\xbb\xfa.vmx", body: config}, entryOf{name: "\x95\x5c\x95\x7c", body: "x"}), []file{vmx("╨Θ─Γ╗·.vmx"), {name: "ò＼ò｜", body: []byte("x")}}},
		"tar, names in windows-1252":     {tarOf(t, vmx("a.vmx"), file{name: "\xdcbung", body: []byte("x")}), []file{vmx("a.vmx"), {name: "▄bung", body: []byte("x")}}},
		"tar, file packed again":         {tarOf(t, vmx("a.vmx"), file{name: "disk", body: []byte("old and long")}, file{name: "disk", body: []byte("new")}), []file{vmx("a.vmx"), {name: "disk", body: []byte("new")}}},
		"zstd, frame to skip":            {append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00\xb0\x0f\x00\x00"), zstdOf(t, tarOf(t, vmx("a.vmx")))...), []file{vmx("a.vmx")}},
		"contiguous file":                {tarOf(t, file{name: "a.vmx", hdr: typed(tar.TypeCont, "")}), []file{{name: "a.vmx"}}},
	} {
		t.Run(title, func(t *testing.T) { wantFiles(t, ensure(t, tt.archive), tt.want) })
	}
}

// A file that is no archive of an image is named, with what to do.
func TestOtherFormatsAreNamed(t *testing.T) {
	for head, want := range map[string]string{
		"7z\xbc\xaf\x27\x1c\x00\x04":        "7z x IMAGE.7z",
		"Rar!\x1a\x07\x01\x00":              "RAR",
		"\x04\x22\x4d\x18xxxx":              "lz4 -d",
		"\x1f\x9d\x90xxxx":                  "uncompress",
		"KDMV\x01\x00\x00\x00":              "disk without its machine",
		"QFI\xfb\x00\x00\x00\x03":           "qcow2",
		"\n<!DOCTYPE html><html>":           "web page",
		"<?xml version=\"1.0\"?><Envelope>": ".ova",
		".encoding = \"UTF-8\"":             "without its disks",
		"something else entirely":           "something else",
	} {
		for _, b := range [][]byte{[]byte(head), gzipOf(t, []byte(head))} {
			c, dir := open(t)
			url, _ := serve(t, b)
			_, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, b)}, nil)
			if !hasKind(err) || err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%.20q: got %v, want it to say %q", head, err, want)
			}
			wantEmpty(t, dir)
		}
	}
}

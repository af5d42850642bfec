package image_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"osx-builder/image"
)

func typed(flag byte, link string) func(*tar.Header) {
	return func(h *tar.Header) { h.Typeflag, h.Linkname, h.Size = flag, link, 0 }
}

// Whatever an archive does, nothing outside the cache changes, nothing of it
// stays, and the error has its kind and names the culprit.
func TestHostileArchives(t *testing.T) {
	name := func(n string) []file { return []file{vmx("a.vmx"), {name: n, body: []byte("gotcha")}} }
	both := func(a, b string) []file { return []file{vmx("a.vmx"), {name: a}, {name: b}} }
	small := limits(func(l *image.Limits) {
		l.UnpackedBytes, l.Entries, l.PathDepth, l.PathLength, l.DownloadBytes = 1<<20, 10, 4, 100, 300_000
	})
	for title, tt := range map[string]struct {
		files []file
		want  error
		text  string
	}{
		"traversal":                {name("../gotcha"), image.ErrUnsafe, "../gotcha"},
		"traversal in the middle":  {name("a/../../gotcha"), image.ErrUnsafe, "leaves"},
		"traversal at the end":     {name("a/.."), image.ErrUnsafe, "leaves"},
		"absolute":                 {name("/tmp/gotcha"), image.ErrUnsafe, "absolute"},
		"drive letter":             {name("C:gotcha"), image.ErrUnsafe, "C:gotcha"},
		"backslashes":              {name(`..\gotcha`), image.ErrUnsafe, `gotcha`},
		"control character":        {name("a\nb"), image.ErrInvalid, "printed"},
		"text direction override":  {name("a\u202exmv.vmdk"), image.ErrInvalid, "printed"},
		"backslashes, absolute":    {name(`\\server\share\gotcha`), image.ErrUnsafe, "absolute"},
		"device name":              {name("dir/nul.vmdk"), image.ErrInvalid, "device"},
		"other device name":        {name("COM¹"), image.ErrInvalid, "device"},
		"trailing dot":             {name("a./b"), image.ErrInvalid, "dot"},
		"alternate stream":         {name("a.vmdk:stream"), image.ErrInvalid, "stream"},
		"long element":             {name(strings.Repeat("x", 99) + strings.Repeat("y", 200)), image.ErrPathTooLong, "100 bytes"},
		"deep path":                {name("a/b/c/d/e"), image.ErrPathTooDeep, "4 elements"},
		"letter case":              {both("disk.vmdk", "DISK.vmdk"), image.ErrInvalid, "DISK.vmdk"},
		"letter case of a folder":  {both("Dir/x", "dir/y"), image.ErrInvalid, "Dir"},
		"letter case beyond ASCII": {both("straße", "STRASSE"), image.ErrInvalid, "STRASSE"},
		"Unicode form":             {both("caf\u00e9", "cafe\u0301"), image.ErrInvalid, "Unicode"},
		"file and folder":          {both("a/b", "a"), image.ErrInvalid, "both"},
		"folder under a file":      {both("a", "a/b"), image.ErrInvalid, "both"},
		"record of the cache":      {name("Image.json"), image.ErrInvalid, "image.json"},
		"symbolic link":            {[]file{vmx("a.vmx"), {name: "l", hdr: typed(tar.TypeSymlink, "/etc/shadow")}}, image.ErrUnsafe, "/etc/shadow"},
		"GHSA-vxp5-584q-c479: a link, then a file below it": {[]file{vmx("a.vmx"), {name: "templates", hdr: typed(tar.TypeSymlink, "/tmp")}, {name: "templates/gotcha"}}, image.ErrUnsafe, "templates"},
		"symbolic link above":                               {[]file{vmx("a.vmx"), {name: "d/l", hdr: typed(tar.TypeSymlink, "../../x")}}, image.ErrUnsafe, "outside"},
		"symbolic link inside":                              {[]file{vmx("a.vmx"), {name: "d/l", hdr: typed(tar.TypeSymlink, "../a.vmx")}}, image.ErrInvalid, "--dereference"},
		"hard link outside":                                 {[]file{vmx("a.vmx"), {name: "l", hdr: typed(tar.TypeLink, "/etc/shadow")}}, image.ErrUnsafe, "absolute"},
		"hard link above":                                   {[]file{vmx("a.vmx"), {name: "l", hdr: typed(tar.TypeLink, "../a.vmx")}}, image.ErrUnsafe, "leaves"},
		"hard link ahead":                                   {[]file{{name: "l", hdr: typed(tar.TypeLink, "a.vmx")}, vmx("a.vmx")}, image.ErrInvalid, "not before it"},
		"hard link to a folder":                             {[]file{vmx("d/a.vmx"), {name: "l", hdr: typed(tar.TypeLink, "d")}}, image.ErrInvalid, "not before it"},
		"hard links, many bytes":                            {[]file{vmx("a.vmx"), {name: "d", body: make([]byte, 600_000)}, {name: "e", hdr: typed(tar.TypeLink, "d")}}, image.ErrTooLarge, "1.0 MiB"},
		"tar of several volumes":                            {[]file{vmx("a.vmx"), {name: "d", hdr: typed('M', "")}}, image.ErrInvalid, "volumes"},
		"character device":                                  {[]file{vmx("a.vmx"), {name: "d", hdr: typed(tar.TypeChar, "")}}, image.ErrUnsafe, "device"},
		"block device":                                      {[]file{vmx("a.vmx"), {name: "d", hdr: typed(tar.TypeBlock, "")}}, image.ErrUnsafe, "device"},
		"pipe":                                              {[]file{vmx("a.vmx"), {name: "d", hdr: typed(tar.TypeFifo, "")}}, image.ErrInvalid, "pipe"},
		"too many entries":                                  {many(11), image.ErrTooManyEntries, "10 entries"},
		"too many bytes":                                    {[]file{vmx("a.vmx"), {name: "d", body: make([]byte, 1<<20+1)}}, image.ErrTooLarge, "1.0 MiB"},
		"too many bytes in all":                             {[]file{vmx("a.vmx"), {name: "d", body: make([]byte, 600_000)}, {name: "e", body: make([]byte, 600_000)}}, image.ErrTooLarge, "1.0 MiB"},
		"too many bytes to fetch":                           {[]file{vmx("a.vmx"), {name: "d", body: noise(400_000, 1)}}, image.ErrArchiveTooLarge, "293 KiB"},
	} {
		t.Run(title, func(t *testing.T) {
			for form, b := range archivesOf(t, tt.files) {
				parent := t.TempDir()
				dir := filepath.Join(parent, "images")
				c := openIn(t, dir, small)
				url, _ := serve(t, b)
				_, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, b)}, nil)
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("%s: got %v, want %v that says %q", form, err, tt.want, tt.text)
				}
				wantEmpty(t, dir)
				if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
					t.Errorf("%s: %v beside the cache, %v", form, entries, err)
				}
			}
		})
	}
}

func many(n int) []file {
	files := []file{vmx("a.vmx")}
	for i := range n - 1 {
		files = append(files, file{name: fmt.Sprint("f", i)})
	}
	return files
}

// archivesOf makes a tar.gz of the files, and a zip where a zip can say the
// same.
func archivesOf(t testing.TB, files []file) map[string][]byte {
	t.Helper()
	archives := map[string][]byte{"tar.gz": gzipOf(t, tarOf(t, files...))}
	for _, f := range files {
		if f.hdr != nil {
			return archives
		}
	}
	archives["zip"] = zipOf(t, files...)
	return archives
}

// Archives whose own structure lies.
func TestBombsAndLies(t *testing.T) {
	as := bytes.Repeat([]byte("A"), 17<<20)
	noDisk := limits(func(l *image.Limits) { l.UnpackedBytes = 64 << 30 })
	for title, tt := range map[string]struct {
		body []byte
		want error
		text string
	}{
		"CVE-2023-0821: tar.gz bomb":  {gzipOf(t, tarOf(t, vmx("a.vmx"), file{name: "d", body: as})), image.ErrRatioTooHigh, "200 bytes"},
		"CVE-2023-0821: tar.zst bomb": {zstdOf(t, tarOf(t, vmx("a.vmx"), file{name: "d", body: as})), image.ErrRatioTooHigh, "200 bytes"},
		"CVE-2023-0821: zip bomb":     {zipOf(t, vmx("a.vmx"), file{name: "d", body: as}), image.ErrRatioTooHigh, "200 bytes"},
		"sparse tar of 1 EiB":         {sparseTar(t, "1152921504606846976"), image.ErrTooLarge, "64 GiB"},
		"zip with a link":             {zipWith(t, func(h *zip.FileHeader) { h.SetMode(fs.ModeSymlink | 0o777) }), image.ErrInvalid, "zip without -y"},
		"zip with a link above":       {zipWith(t, func(h *zip.FileHeader) { h.SetMode(fs.ModeSymlink | 0o777) }, "../../x"), image.ErrUnsafe, "../../x"},
		"zip with a pipe":             {zipWith(t, func(h *zip.FileHeader) { h.SetMode(fs.ModeNamedPipe | 0o777) }), image.ErrInvalid, "pipe"},
		"zip with a name twice":       {zipOf(t, vmx("a.vmx"), file{name: "disk.vmdk"}, file{name: "disk.vmdk"}), image.ErrInvalid, "twice"},
		"zip with a wrong CRC":        {zipWith(t, func(h *zip.FileHeader) { h.CRC32++ }), image.ErrInvalid, "checksum"},
		"zip with a device":           {zipWith(t, func(h *zip.FileHeader) { h.SetMode(fs.ModeDevice | 0o777) }), image.ErrUnsafe, "device"},
		"encrypted zip":               {zipWith(t, func(h *zip.FileHeader) { h.Flags |= 1 }), image.ErrInvalid, "encrypted"},
		"zip of unknown method":       {zipWith(t, func(h *zip.FileHeader) { h.Method = 9 }), image.ErrInvalid, "Deflate64"},
		"zip that lies on size":       {zipWith(t, func(h *zip.FileHeader) { h.UncompressedSize64 = 3 }), image.ErrInvalid, ""},
		"huge zip directory":          {hugeZip(t), image.ErrTooManyEntries, "directory"},
		"zstd window":                 {[]byte(bigWindow), image.ErrInvalid, "--long=27"},
	} {
		t.Run(title, func(t *testing.T) {
			c, dir := open(t, noDisk)
			url, _ := serve(t, tt.body)
			_, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, tt.body)}, nil)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v that says %q", err, tt.want, tt.text)
			}
			wantEmpty(t, dir)
		})
	}
}

// sparseTar is a PAX archive whose one file is all hole.
func sparseTar(t testing.TB, size string) []byte {
	t.Helper()
	records := ""
	for _, kv := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=a.vmx", "GNU.sparse.realsize=" + size} {
		for n := len(kv) + 3; ; n++ {
			if line := fmt.Sprintf("%d %s\n", n, kv); len(line) == n {
				records += line
				break
			}
		}
	}
	body := make([]byte, 512)
	copy(body, "1\n"+size+"\n0\n")
	return rawTar(t, 'x', "pax", []byte(records), '0', "x", body)
}

// rawTar writes two entries that tar.Writer refuses to.
func rawTar(t testing.TB, flag1 byte, name1 string, body1 []byte, flag2 byte, name2 string, body2 []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	entry := func(flag byte, name string, body []byte) {
		h := make([]byte, 512)
		copy(h, name)
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00        ", len(body), 0))
		h[156] = flag
		copy(h[257:], "ustar\x0000")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		b.Write(h)
		b.Write(body)
		b.Write(make([]byte, (512-len(body)%512)%512))
	}
	entry(flag1, name1, body1)
	entry(flag2, name2, body2)
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

// zipWith makes a zip with one entry beside the .vmx, whose header is bent.
func zipWith(t testing.TB, bend func(*zip.FileHeader), content ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i, name := range []string{"a.vmx", "disk.vmdk"} {
		body := []byte(strings.Join(append(content[:len(content):len(content)], "some content")[:1], ""))
		h := &zip.FileHeader{Name: name, CRC32: crc32.ChecksumIEEE(body), CompressedSize64: uint64(len(body)), UncompressedSize64: uint64(len(body))}
		if i == 1 {
			bend(h)
		}
		w, err := z.CreateRaw(h)
		must(t, err)
		_, err = w.Write(body)
		must(t, err)
	}
	must(t, z.Close())
	return b.Bytes()
}

func hugeZip(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := range 100 {
		_, err := z.CreateRaw(&zip.FileHeader{Name: fmt.Sprint(i), Comment: strings.Repeat("c", 60_000)})
		must(t, err)
	}
	must(t, z.Close())
	return b.Bytes()
}

// bigWindow is an empty zstd frame that wants 512 MiB of memory: magic, no
// flags, a window of 2^(10+19) bytes, and a last block of nothing (RFC 8878).
const bigWindow = "\x28\xb5\x2f\xfd\x00\x98\x01\x00\x00"

// An empty disk costs no space and is no bomb, in whatever way it comes.
func TestZeroesBecomeHoles(t *testing.T) {
	const size = 2 << 20
	files := []file{vmx("a.vmx"), {name: "disk-flat.vmdk", body: append(make([]byte, size), "end"...)}}
	plain := tarOf(t, files...)
	for name, b := range map[string][]byte{"tar.gz": gzipOf(t, plain), "tar.bz2": bzip2Of(t, plain), "zip": zipOf(t, files...)} {
		t.Run(name, func(t *testing.T) {
			c, _ := open(t)
			url, _ := serve(t, b)
			g, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, b)}, nil)
			must(t, err)
			info, err := os.Stat(filepath.Join(g.Dir, "disk-flat.vmdk"))
			must(t, err)
			list, err := c.List()
			must(t, err)
			if info.Size() != size+3 || list[0].Bytes < size || list[0].DiskBytes > 1<<18 {
				t.Errorf("file has %d bytes, want %d; entry %+v, want little on disk", info.Size(), size+3, list[0])
			}
		})
	}
}

// What macOS and git add to archives is no part of the machine.
func TestHonestOddities(t *testing.T) {
	want := []file{vmx("mac/mac.vmx"), {name: "mac/disk.vmdk", body: noise(100, 1)}}
	odd := append([]file{
		{name: "pax_global_header", hdr: func(h *tar.Header) {
			*h = tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "c"}}
		}},
		{name: "./"},
		{name: "./mac/"},
		{name: "mac/._mac.vmx", body: []byte("fork")},
		{name: "__MACOSX/mac/._disk.vmdk", body: []byte("fork")},
		{name: "__MACOSX/x.vmx", body: []byte("fork")},
	}, want...)
	b := gzipOf(t, append(tarOf(t, odd...), make([]byte, 10240)...))
	c, _ := open(t)
	url, _ := serve(t, b)
	g, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, b)}, nil)
	must(t, err)
	wantFiles(t, g, want)
}

// The modes and owners that an archive gives its files are nobody's here.
func TestModesAndOwnersAreIgnored(t *testing.T) {
	strange := func(h *tar.Header) {
		h.Mode, h.Uid, h.Gid, h.Uname, h.Gname = 0o6777, 12345, 54321, "mallory", "mallory"
	}
	files := []file{{name: "d/", hdr: strange}, vmx("d/a.vmx"), {name: "d/suid", body: []byte("#!"), hdr: strange}, {name: "d/none", hdr: func(h *tar.Header) { h.Mode = 0 }}}
	b := gzipOf(t, tarOf(t, files...))
	c, _ := open(t)
	url, _ := serve(t, b)
	g, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, b)}, nil)
	must(t, err)
	wantFiles(t, g, files)
	for name, want := range map[string]fs.FileMode{"d": fs.ModeDir | 0o555, "d/suid": 0o444, "d/none": 0o444} {
		info, err := os.Stat(filepath.Join(g.Dir, name))
		must(t, err)
		if st := info.Sys().(*syscall.Stat_t); info.Mode() != want || int(st.Uid) != os.Getuid() {
			t.Errorf("%s has mode %v and owner %d, want %v and %d", name, info.Mode(), st.Uid, want, os.Getuid())
		}
	}
}

type unsafeError struct{ error }

func (unsafeError) Unsafe() bool { return true }

func TestCheckDecides(t *testing.T) {
	b := gzipOf(t, tarOf(t, someFiles()...))
	for name, tt := range map[string]struct{ err, want error }{
		"fine":    {nil, nil},
		"invalid": {errors.New("mac.vmx: no disk"), image.ErrInvalid},
		"unsafe":  {fmt.Errorf("checking: %w", unsafeError{errors.New("mac.vmx: ide0:0.fileName = /dev/sda")}), image.ErrUnsafe},
	} {
		t.Run(name, func(t *testing.T) {
			c, dir := open(t, func(o *image.Options) {
				o.Check = func(root *os.Root, vmx string) error {
					if got, err := root.ReadFile(vmx); err != nil || vmx != "mac/mac.vmx" || !bytes.Contains(got, []byte("config.version")) {
						t.Errorf("checking %s: %q, %v", vmx, got, err)
					}
					return tt.err
				}
			})
			url, _ := serve(t, b)
			_, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, b)}, nil)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if tt.want != nil {
				if err == nil || !strings.Contains(err.Error(), tt.err.Error()) {
					t.Errorf("got %v, want the check's own words %q", err, tt.err)
				}
				wantEmpty(t, dir)
			}
		})
	}
}

// A bzip2 block whose bits hold what begins a block: the bytes that it uses
// spell that mark in the table of used bytes.
func TestBzip2MarkInsideABlock(t *testing.T) {
	var used []byte
	for i, word := range []uint16{0x3141, 0x5926, 0x5359} {
		for bit := range 16 {
			if word&(0x8000>>bit) != 0 {
				used = append(used, byte(16*i+bit))
			}
		}
	}
	// A tar archive has bytes of its own, so the pattern is a block by itself:
	// bzip2 -1 begins a new one every 100 kB.
	pattern := make([]byte, 400_000)
	at := 0
	for i, r := range noise(len(pattern), 7) {
		at = (at + 1 + int(r)%(len(used)-1)) % len(used) // never the same twice: bzip2 would write a count
		pattern[i] = used[at]
	}
	want := []file{vmx("a.vmx"), {name: "disk", body: pattern}}
	b := smallBlocks(t, tarOf(t, want...))
	const blocks = 5
	if n := marks(b); n <= blocks {
		t.Fatalf("%d marks of blocks, want more than the %d blocks", n, blocks)
	}
	c, _ := open(t)
	url, _ := serve(t, b)
	g, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, b)}, nil)
	must(t, err)
	wantFiles(t, g, want)
}

// marks counts what looks like the beginning of a block, at any bit.
func marks(b []byte) int {
	var acc uint64
	n := 0
	for i := range len(b) * 8 {
		acc = acc<<1 | uint64(b[i/8]>>(7-i%8)&1)
		if acc&(1<<48-1) == 0x314159265359 {
			n++
		}
	}
	return n
}

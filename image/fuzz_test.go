package image_test

import (
	"archive/tar"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"osx-builder/image"
	"osx-builder/vm/vmtest/harness"
)

// fuzzMemory bounds how much the heap of a process grows that unpacks any bytes:
// the windows of the decompressors, and what the fuzzer itself takes.
const fuzzMemory = 512 << 20

// FuzzUnpack feeds any bytes as an archive with the right checksum. Whatever
// they are, nothing outside the cache changes, memory stays bounded, an error
// has its kind, and what becomes gold has its .vmx inside.
func FuzzUnpack(f *testing.F) {
	plain := tarOf(f, vmx("a.vmx"), file{name: "dir/disk", body: append(make([]byte, 70_000), noise(100, 1)...)})
	for _, b := range [][]byte{
		plain, gzipOf(f, plain), bzip2Of(f, plain), xzOf(f, plain), zstdOf(f, plain),
		zipOf(f, vmx("a.vmx"), file{name: "dir/disk", body: make([]byte, 1000)}),
		tarOf(f, vmx("../a.vmx")), sparseTar(f, "100000"), hugeZip(f)[:5000], []byte(bigWindow),
		gzipOf(f, gzipOf(f, plain)), append(gzipOf(f, plain[:512]), gzipOf(f, plain[512:])...), cut(gzipOf(f, plain)),
		tarOf(f, vmx("a.vmx"), file{name: "l", hdr: typed(tar.TypeSymlink, "/")}, file{name: "l/x"}),
		zipOf(f, vmx("a.vmx"), file{name: `..\x`}, file{name: "A.VMX"}),
		zipFrom(f, entryOf{name: `a\b.vmx`, body: "x"}, entryOf{name: "\x95\x5c", body: "x", extra: unicodePath("\x95\x5c", "x")}),
		finderArchive([]finderFile{{"a.vmx", []byte("x"), 0, 1, 0}, {"d", []byte("\x03\x00"), 0, 1 << 32, 8}}),
		tarOf(f, vmx("a.vmx"), file{name: "l", hdr: typed(tar.TypeLink, "a.vmx")}), append(gzipOf(f, plain), 0, 0, 0), append(bzip2Of(f, plain), 0, 0, 0),
	} {
		f.Add(b)
	}
	var body []byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(body)
	}))
	defer s.Close()
	parent := f.TempDir()
	dir := filepath.Join(parent, "images")
	c := openIn(f, dir, limits(func(l *image.Limits) { l.UnpackedBytes = 8 << 20 }))
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	f.Fuzz(func(t *testing.T, b []byte) {
		body = b
		src := image.Source{URL: s.URL, Sum: sumOf(t, b)}
		ctx, cancel := context.WithTimeout(t.Context(), harness.Timeout)
		defer cancel()
		g, err := c.Ensure(ctx, src, nil)
		if err == nil {
			if info, err := os.Lstat(g.VMX); err != nil || !info.Mode().IsRegular() {
				t.Errorf("%s: %v, %v", g.VMX, info, err)
			}
			must(t, c.Remove(src.Sum))
		} else if !hasKind(err) {
			t.Errorf("error without a kind: %v", err)
		}
		var memory runtime.MemStats
		if runtime.ReadMemStats(&memory); memory.HeapSys > before.HeapSys+fuzzMemory {
			t.Errorf("the heap grew by %d bytes, want at most %d", memory.HeapSys-before.HeapSys, fuzzMemory)
		}
		wantEmpty(t, dir)
		if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
			t.Errorf("%v beside the cache, %v", entries, err)
		}
	})
}

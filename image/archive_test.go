package image_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/dsnet/compress/bzip2"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"osx-builder/image"
)

// file is an entry of an archive that a test makes.
type file struct {
	name string
	body []byte
	hdr  func(*tar.Header) // bends the header
}

func vmx(name string) file { return file{name: name, body: []byte("config.version = \"8\"\n")} }

// someFiles are an honest image's: noise, zeroes, an odd size, folders.
func someFiles() []file {
	return []file{
		{name: "mac/"},
		vmx("mac/mac.vmx"),
		{name: "mac/disk.vmdk", body: append(noise(300_000, 1), append(make([]byte, 500_000), noise(777, 2)...)...)},
		{name: "mac/empty.log"},
		{name: "mac/deep/er/nvram", body: noise(8684, 3)},
	}
}

func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	if _, err := rand.NewChaCha8(key).Read(b); err != nil {
		panic(err)
	}
	return b
}

func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o600, Size: int64(len(f.body)), Typeflag: tar.TypeReg, ModTime: time.Unix(1e9, 0)}
		if f.name[len(f.name)-1] == '/' {
			h.Typeflag = tar.TypeDir
		}
		if f.hdr != nil {
			f.hdr(h)
		}
		must(t, w.WriteHeader(h))
		if h.Typeflag == tar.TypeReg {
			_, err := w.Write(f.body)
			must(t, err)
		}
	}
	must(t, w.Close())
	return b.Bytes()
}

func zipOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		w, err := z.Create(f.name)
		must(t, err)
		_, err = w.Write(f.body)
		must(t, err)
	}
	must(t, z.Close())
	return b.Bytes()
}

// packs are the compressed archives that were made, by format and checksum.
// Many tests use the same, and the race detector makes compression slow.
var packs sync.Map

func compressed(t testing.TB, format string, b []byte, open func(io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	key := format + " " + sumOf(t, b).Hex
	if known, ok := packs.Load(key); ok {
		return bytesOf(known.([]byte))
	}
	var out bytes.Buffer
	w, err := open(&out)
	must(t, err)
	_, err = w.Write(b)
	must(t, err)
	must(t, w.Close())
	packs.Store(key, bytesOf(out.Bytes()))
	return out.Bytes()
}

func gzipOf(t testing.TB, b []byte) []byte {
	t.Helper()
	return compressed(t, "gzip", b, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })
}

func bzip2Of(t testing.TB, b []byte) []byte {
	t.Helper()
	return compressed(t, "bzip2", b, func(w io.Writer) (io.WriteCloser, error) { return bzip2.NewWriter(w, nil) })
}

// smallBlocks is bzip2Of with blocks of 100 kB and not of 900.
func smallBlocks(t testing.TB, b []byte) []byte {
	t.Helper()
	return compressed(t, "bzip2 -1", b, func(w io.Writer) (io.WriteCloser, error) {
		return bzip2.NewWriter(w, &bzip2.WriterConfig{Level: 1})
	})
}

func xzOf(t testing.TB, b []byte) []byte {
	t.Helper()
	return compressed(t, "xz", b, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) })
}

func zstdOf(t testing.TB, b []byte) []byte {
	t.Helper()
	return compressed(t, "zstd", b, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) })
}

// sumOf returns the checksum of b, by default SHA-256.
func sumOf(t testing.TB, b []byte, typ ...string) image.Sum {
	t.Helper()
	typ = append(typ, "sha256")
	h := map[string]func() hash.Hash{"md5": md5.New, "sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New}[typ[0]]()
	h.Write(b)
	s, err := image.ParseSum(typ[0], hex.EncodeToString(h.Sum(nil)))
	must(t, err)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

package image_test

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"osx-builder/image"
	"osx-builder/vm/vmtest/e2e"
)

// smallDisk mounts a file system of n MiB.
func smallDisk(t testing.TB, n int) string {
	t.Helper()
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+itoa(n)+"m"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	return filepath.Join(dir, "images")
}

func reserve(n int64) func(*image.Options) {
	return limits(func(l *image.Limits) { l.FreeBytes = n })
}

// A disk that is too small is said to be full before or during the download or
// the unpacking, nothing is left, and a smaller image works.
func TestDiskFull(t *testing.T) {
	if !e2e.IsolateTest(t) {
		return
	}
	for name, tt := range map[string]struct {
		disk   int // MiB
		opts   func(*image.Options)
		chunks bool // the server does not say how long the image is
		kib    int
		files  []file
	}{
		"seen before the download":      {disk: 8, opts: reserve(1 << 20), kib: 7500},
		"seen during the download":      {disk: 8, opts: reserve(1 << 20), chunks: true, kib: 9000},
		"met by the download":           {disk: 8, opts: reserve(-1), chunks: true, kib: 9000},
		"met by the unpacker":           {disk: 8, opts: reserve(-1), kib: 6000},
		"reserve met by the unpacker":   {disk: 32, opts: reserve(12 << 20), kib: 14000},
		"no space even for the reserve": {disk: 8, opts: reserve(1 << 30), kib: 10},
	} {
		t.Run(name, func(t *testing.T) {
			dir := smallDisk(t, tt.disk)
			c := openIn(t, dir, tt.opts)
			b := tarOf(t, vmx("a.vmx"), file{name: "disk", body: noise(tt.kib<<10, 1)})
			url, _ := serve(t, b)
			if tt.chunks {
				url = serveChunked(t, b)
			}
			_, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, b)}, nil)
			if !errors.Is(err, image.ErrDiskFull) {
				t.Errorf("got %v, want ErrDiskFull", err)
			}
			wantEmpty(t, dir)
			must(t, c.Close())
			c = openIn(t, dir, reserve(1<<20))
			keep(t, c, 500)
		})
	}
}

// The error shows ENOSPC.
func TestDiskFullIsENOSPC(t *testing.T) {
	if !e2e.IsolateTest(t) {
		return
	}
	dir := smallDisk(t, 4)
	c := openIn(t, dir, reserve(-1))
	b := tarOf(t, vmx("a.vmx"), file{name: "disk", body: noise(3<<20, 1)})
	url, _ := serve(t, b)
	_, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, b)}, nil)
	if !errors.Is(err, image.ErrDiskFull) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want ErrDiskFull and ENOSPC", err)
	}
}

// A short disk evicts what nobody needs, but only if that helps.
func TestShortDiskEvicts(t *testing.T) {
	if !e2e.IsolateTest(t) {
		return
	}
	dir := smallDisk(t, 32)
	c := openIn(t, dir, reserve(10<<20))
	needed, _ := keep(t, c, 2000)
	c.Hold("a machine", needed)
	idle, _ := keep(t, c, 8000)

	huge := tarOf(t, vmx("a.vmx"), file{name: "disk", body: noise(25<<20, 1)})
	url, _ := serve(t, huge)
	if _, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, huge)}, nil); !errors.Is(err, image.ErrDiskFull) {
		t.Errorf("got %v, want ErrDiskFull", err)
	}
	if got := sums(t, c); len(got) != 2 {
		t.Errorf("%v left, want both images: evicting could not help", got)
	}
	next, _ := keep(t, c, 9000)
	if got := sums(t, c); len(got) != 2 || got[0] != needed || got[1] != next {
		t.Errorf("%v left, want %v and %v, not %v", got, needed, next, idle)
	}
}

package qemu_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// flood writes 0, 1, 2 ... 255, 0 ... to the first serial port for ever.
var flood = []byte{0xfa, 0xba, 0xf8, 0x03, 0x30, 0xc0, 0xee, 0xfe, 0xc0, 0xeb, 0xfb}

// However much a guest writes, a driver that is opened gives the disk back
// what is not the log's end; the guest writes on, and who reads at the end
// misses nothing. While no driver is open, the machine's own trimmer goes on.
func TestConsoleIsBounded(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.running(flood)
	path := filepath.Join(m.Dir, "serial.log")
	stat := func() os.FileInfo {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	size := func() int64 { return stat().Size() }
	hole := func() int64 { info := stat(); return info.Size() - info.Sys().(*syscall.Stat_t).Blocks*512 }
	until(t, harness.Timeout, "3 MiB on the serial port", func() bool { return size() > vm.ConsoleKept+1<<20 })
	log, err := r.Console(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	start, err := log.Seek(-vm.ConsoleTail, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	before := size()
	another, err := openDriver(options(r.data))
	if err != nil {
		t.Fatal(err)
	}
	until(t, harness.Timeout, "a hole", func() bool { return hole() > 1<<19 })
	until(t, harness.Timeout, "more from the guest", func() bool { return size() > before })
	tail := make([]byte, before-start)
	if _, err := io.ReadFull(log, tail); err != nil {
		t.Fatal(err)
	}
	for i, b := range tail {
		if b != byte(start+int64(i)) {
			t.Fatalf("got byte %d at %d, want %d", b, start+int64(i), byte(start+int64(i)))
		}
	}
	first := make([]byte, 512)
	if f, err := os.Open(path); err != nil {
		t.Fatal(err)
	} else if _, err = io.ReadFull(f, first); err != nil || !bytes.Equal(first, make([]byte, 512)) {
		t.Errorf("got %v, %v at the log's beginning, want a hole", first[:8], err)
	} else {
		f.Close()
	}
	if err := errors.Join(another.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	defer func() { // for what the test ends with
		if r.Driver, err = openDriver(options(r.data)); err != nil {
			t.Fatal(err)
		}
	}()
	before = hole()
	until(t, harness.Timeout, "a larger hole without a driver", func() bool { return hole() > before+1<<20 })
}

package qemu

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"osx-builder/vm/vmtest/harness"
)

// The trimmer gives the disk back what is not the log's end, empties a log that is too long, keeps what is short, and
// ends with its QEMU.
func TestTrimmer(t *testing.T) {
	t.Parallel()
	const kept = 1 << 20
	for name, test := range map[string]struct {
		size, limit         int64
		wantSize, wantTaken int64 // at most
	}{
		"short":    {kept / 2, 1 << 30, kept / 2, kept / 2},
		"long":     {5 << 20, 1 << 30, 5 << 20, kept + 1<<16},
		"too long": {5 << 20, 4 << 20, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "serial.log")
			harness.Must(t, os.WriteFile(path, bytes.Repeat([]byte("x"), int(test.size)), 0o600))
			log, err := os.Open(path)
			harness.Must(t, err)
			defer log.Close()
			r, w, err := os.Pipe()
			harness.Must(t, err)
			defer r.Close()
			cmd := exec.Command("/bin/sh", "-c", trimmer, "trimmer", "0.2", "1048576", strconv.FormatInt(test.limit, 10), "3", "4")
			cmd.ExtraFiles = []*os.File{r, log}
			harness.Must(t, cmd.Start())
			var info os.FileInfo
			taken := func() int64 { return info.Sys().(*syscall.Stat_t).Blocks * 512 }
			for end := time.Now().Add(harness.Timeout); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				info, err = os.Stat(path)
				harness.Must(t, err)
				if info.Size() == test.wantSize && taken() <= test.wantTaken+1<<12 {
					break
				}
			}
			if info.Size() != test.wantSize || taken() > test.wantTaken+1<<12 {
				t.Errorf("got %d bytes, %d on the disk, want %d and at most %d", info.Size(), taken(), test.wantSize, test.wantTaken)
			}
			w.Close()
			if err := cmd.Wait(); err != nil {
				t.Errorf("got %v at its end, want none", err)
			}
		})
	}
}

package image_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"osx-builder/image"
)

// benchMiB is the size of the disk in the benchmarks' image, half noise and
// half zeroes; IMAGE_BENCH_MIB changes it.
func benchMiB() int {
	n, err := strconv.Atoi(os.Getenv("IMAGE_BENCH_MIB"))
	if err != nil {
		return 1024
	}
	return n
}

// BenchmarkCold measures a cold Ensure, in a process of its own, against what
// a shell does for the same: one tool after the other (/files), and a pipe
// (/pipe; zip cannot be read from one). Ratios under 1 mean that Ensure took less.
func BenchmarkCold(b *testing.B) {
	for _, f := range []struct{ name, make, sequence, pipe string }{
		{"tar", "tar cf image mac", "tar xf f", "tar x"},
		{"tar.gz", "tar cf - mac | gzip > image", "tar xzf f", "tar xz"},
		{"tar.zst", "tar cf - mac | zstd -q > image", "tar --zstd -xf f", "tar --zstd -x"},
		{"tar.xz", "tar cf - mac | xz -T0 > image", "tar xJf f", "tar xJ"},
		{"tar.bz2", "tar cf - mac | bzip2 > image", "tar xjf f", "tar xj"},
		{"zip", "zip -qr image mac && mv image.zip image", "unzip -q f || python3 -m zipfile -e f .", ""},
	} {
		b.Run(f.name, func(b *testing.B) {
			dir := b.TempDir()
			benchFiles(b, filepath.Join(dir, "mac"), benchMiB())
			shell(b, dir, f.make)
			sum, _, _ := strings.Cut(shell(b, dir, "sha256sum image"), " ")
			_, url := startHelper(b, "serve", dir)
			url += "/image"
			var ours, files, pipe cost
			for b.Loop() {
				work := b.TempDir()
				files.add(measure(b, work, exec.Command("bash", "-c", "set -e; curl -sSo f "+url+"; sha256sum f; "+f.sequence)))
				if f.pipe != "" {
					work = b.TempDir()
					pipe.add(measure(b, work, exec.Command("bash", "-c", "set -eo pipefail; curl -sS "+url+" | tee >(sha256sum >sum) | "+f.pipe)))
				}
				ours.add(measureEnsure(b, url, sum))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(ours.wall.Seconds()/float64(ours.n), "s/ensure")
			b.ReportMetric(ours.cpu.Seconds()/float64(ours.n), "cpu-s/ensure")
			b.ReportMetric(ours.wall.Seconds()/files.wall.Seconds(), "wall/files")
			b.ReportMetric(ours.cpu.Seconds()/files.cpu.Seconds(), "cpu/files")
			if pipe.n > 0 {
				b.ReportMetric(ours.wall.Seconds()/pipe.wall.Seconds(), "wall/pipe")
				b.ReportMetric(ours.cpu.Seconds()/pipe.cpu.Seconds(), "cpu/pipe")
			}
			reportPeak(b, ours)
		})
	}
}

// BenchmarkShared measures sixteen Ensures of one cold image at once against
// one: in time, and in bytes that the server sends.
func BenchmarkShared(b *testing.B) {
	dir := b.TempDir()
	benchFiles(b, filepath.Join(dir, "mac"), benchMiB())
	shell(b, dir, "tar cf image mac")
	digits, _, _ := strings.Cut(shell(b, dir, "sha256sum image"), " ")
	sum, err := image.FindSum(digits)
	must(b, err)
	var sent atomic.Int64
	url := serveFunc(b, func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(&countingWriter{w, &sent}, r, filepath.Join(dir, "image"))
	})
	ensure := func(n int) (took time.Duration, bytes int64) {
		c, _ := open(b)
		sent.Store(0)
		unix.Sync()
		start := time.Now()
		var callers sync.WaitGroup
		for range n {
			callers.Go(func() {
				if _, err := c.Ensure(b.Context(), image.Source{URL: url, Sum: sum}, nil); err != nil {
					b.Errorf("Ensure: %v", err)
				}
			})
		}
		callers.Wait()
		return time.Since(start), sent.Load()
	}
	for b.Loop() {
		one, oneBytes := ensure(1)
		many, manyBytes := ensure(16)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(many.Seconds()/one.Seconds(), "wall/one")
		b.ReportMetric(float64(manyBytes)/float64(oneBytes), "bytes/one")
	}
}

// countingWriter counts the bytes of a body.
type countingWriter struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.sent.Add(int64(n))
	return n, err
}

func benchFiles(b *testing.B, dir string, mib int) {
	must(b, os.MkdirAll(dir, 0o755))
	must(b, os.WriteFile(filepath.Join(dir, "mac.vmx"), []byte("x"), 0o644))
	disk, err := os.Create(filepath.Join(dir, "disk.vmdk"))
	must(b, err)
	for i := range mib / 2 {
		_, err := disk.Write(noise(1<<20, uint64(i)))
		must(b, err)
	}
	_, err = disk.Write(make([]byte, 1))
	must(b, err)
	must(b, disk.Truncate(int64(mib)<<20))
	must(b, disk.Close())
}

func shell(b *testing.B, dir, script string) string {
	cmd := exec.Command("bash", "-c", "set -eo pipefail; "+script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// peakLimit is the memory that no image may take more of, in bytes.
const peakLimit = 100_000_000

// BenchmarkPeak measures the memory of what takes most: the widest windows that
// are unpacked, with noise enough to fill them, and blocks that are decompressed
// side by side, as on a host with eight processors.
func BenchmarkPeak(b *testing.B) {
	b.Setenv("GOMAXPROCS", "8")
	for name, compress := range map[string]string{"tar.xz": "xz -9", "tar.zst": "zstd -q --long=26", "tar.bz2": "bzip2"} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			benchFiles(b, filepath.Join(dir, "mac"), 192)
			shell(b, dir, "tar cf - mac | "+compress+" > image")
			sum, _, _ := strings.Cut(shell(b, dir, "sha256sum image"), " ")
			_, url := startHelper(b, "serve", dir)
			var ours cost
			for b.Loop() {
				ours.add(measureEnsure(b, url+"/image", sum))
			}
			b.ReportMetric(0, "ns/op")
			reportPeak(b, ours)
		})
	}
}

// measureEnsure measures a cold Ensure in a process of its own.
func measureEnsure(b *testing.B, url, sum string) cost {
	b.Helper()
	work := b.TempDir()
	cmd := exec.Command(os.Args[0], work, url, sum)
	cmd.Env = append(os.Environ(), helperEnv+"=ensure")
	return measure(b, work, cmd)
}

func reportPeak(b *testing.B, c cost) {
	b.Helper()
	b.ReportMetric(float64(c.peak)/1024, "MiB-peak")
	if c.peak<<10 > peakLimit {
		b.Errorf("an Ensure takes %d bytes of memory, want at most %d", c.peak<<10, peakLimit)
	}
}

type cost struct {
	n    int
	wall time.Duration
	cpu  time.Duration
	peak int64 // KiB; a child's is never under its parent's, so this process stays small
}

func (c *cost) add(d cost) {
	c.n++
	c.wall += d.wall
	c.cpu += d.cpu
	c.peak = max(c.peak, d.peak)
}

// measure runs a command in dir, and what it started, and empties dir. What
// others left to be written goes to the disk first: it is not the command's.
func measure(b *testing.B, dir string, cmd *exec.Cmd) cost {
	b.Helper()
	cmd.Dir = dir
	unix.Sync()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		b.Fatalf("%v: %v\n%s", cmd.Args, err, out.Bytes())
	}
	wall := time.Since(start)
	st := cmd.ProcessState
	must(b, exec.Command("chmod", "-R", "u+w", dir).Run())
	must(b, os.RemoveAll(dir))
	if testing.Verbose() {
		fmt.Println(wall, st.UserTime(), st.SystemTime(), st.SysUsage().(*syscall.Rusage).Maxrss/1024, cmd.Args[0])
	}
	return cost{wall: wall, cpu: st.UserTime() + st.SystemTime(), peak: st.SysUsage().(*syscall.Rusage).Maxrss}
}

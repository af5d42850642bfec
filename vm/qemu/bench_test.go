package qemu_test

import (
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// The disk of BenchmarkGold, and what a guest reads of it while it boots, in
// MiB.
const (
	goldMiB = 1024
	bootMiB = 256
)

// BenchmarkGold measures when a disk is best prepared: before the first machine
// reads of it, behind its back, or never. The reads are a boot's: 4 KiB each,
// one at a time. Then it measures what all later reads of a disk cost that was
// not prepared, against one that was, at depths of 1 and 32.
func BenchmarkGold(b *testing.B) {
	for _, subformat := range []string{"streamOptimized", "monolithicSparse"} {
		b.Run(subformat, func(b *testing.B) {
			dir := b.TempDir()
			goldDisk(b, dir)
			img(b, dir, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat="+subformat, "raw", "vmdk")
			for b.Loop() {
				never := img(b, dir, reads("vmdk", 1)...)
				behind := make(chan time.Duration)
				go func() { behind <- img(b, dir, "convert", "-O", "qcow2", "-f", "vmdk", "vmdk", "qcow2") }()
				background := img(b, dir, reads("vmdk", 1)...)
				<-behind
				convert := img(b, dir, "convert", "-O", "qcow2", "-f", "vmdk", "vmdk", "qcow2")
				prepared := img(b, dir, reads("qcow2", 1)...)
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(convert.Seconds()*1024/goldMiB, "convert-s/GiB")
				b.ReportMetric(never.Seconds(), "boot-never-s")
				b.ReportMetric(background.Seconds(), "boot-background-s")
				b.ReportMetric((convert + prepared).Seconds(), "boot-before-s")
				b.ReportMetric(prepared.Seconds(), "boot-later-s")
				b.ReportMetric(never.Seconds()/prepared.Seconds(), "reads/prepared-depth1")
				b.ReportMetric(img(b, dir, reads("vmdk", 32)...).Seconds()/img(b, dir, reads("qcow2", 32)...).Seconds(), "reads/prepared-depth32")
			}
		})
	}
}

// reads has qemu-img read what a boot does of the file that is named as its
// format.
func reads(format string, depth int) []string {
	return []string{"bench", "-f", format, "-c", strconv.Itoa(bootMiB << 20 / 4096), "-d", strconv.Itoa(depth), "-s", "4096", format}
}

// img runs qemu-img and returns how long it took.
func img(b *testing.B, dir string, args ...string) time.Duration {
	cmd := exec.Command("qemu-img", args...)
	cmd.Dir = dir
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Errorf("qemu-img %v: %v: %s", args, err, out)
	}
	return time.Since(start)
}

// goldDisk writes a raw disk whose content is as compressible as that of an
// installed system: half of each 64 KiB is noise.
func goldDisk(b *testing.B, dir string) {
	b.Helper()
	f, err := os.Create(filepath.Join(dir, "raw"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	noise := rand.NewChaCha8(sha256.Sum256([]byte("gold")))
	block := make([]byte, 64<<10)
	for range goldMiB << 20 / len(block) {
		_, _ = noise.Read(block[:len(block)/2])
		if _, err := f.Write(block); err != nil {
			b.Fatal(err)
		}
	}
}

package disk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"osx-builder/vm"
	"osx-builder/vm/qemu/keyedmutex"
	"osx-builder/vm/vmx"
)

const (
	// tempPrefix begins the name of a file that is not complete yet.
	tempPrefix = ".new-"

	// convertSeconds, convertSecondsPerGiB and convertGiBPerSecond bound the
	// processor time of a qemu-img: convertSecondsPerGiB for data that it
	// converts, convertGiBPerSecond for the grains that it only visits, of which
	// an image of a few bytes can claim many TiB. They are ten times what
	// qemu-img needs.
	convertSeconds       = 60
	convertSecondsPerGiB = 35
	convertGiBPerSecond  = 16

	// convertSlack is how much larger than measured a converted disk may be.
	convertSlack = 64 << 20
)

// Prepared converts the slow disks of gold images to qcow2 files. A guest reads
// qcow2 7 to 20 times faster than a streamOptimized VMDK, of which each read
// inflates 64 KiB, and up to 3 times faster than a sparse one, of which QEMU
// serves one read at a time. The conversion takes as long as it takes a guest to
// read a few hundred MiB of the VMDK. So it pays off with the first machine, and
// is done before that machine starts.
//
// The image cache removes an image's prepared disks together with the image. If
// an image was removed otherwise, its folder is swept by [OpenPrepared] and by
// [Prepared.Prepare].
type Prepared struct {
	gold    string // absolute path of the folder with the gold images; "" prepares none
	reserve int64  // bytes of the disk to leave to the host
	log     *slog.Logger

	locks    keyedmutex.Mutex // by image
	failures sync.Map         // *conversionFailure by the file that could not be created
}

// conversionFailure records that qemu-img could not convert a disk, so that the
// daemon does not try again. It does not apply once the image is fetched again.
type conversionFailure struct {
	vmdk os.FileInfo // the disk's file as it was
	err  error
}

// errEmptyDisk means that a disk has no data, so that no copy of it is faster.
var errEmptyDisk = errors.New("the disk is empty")

// OpenPrepared removes incomplete files, and prepared disks whose image is gone.
// gold is the absolute path of the folder with the gold images, or "" to prepare
// nothing. reserve is how many bytes of the disk to leave to the host.
func OpenPrepared(gold string, reserve int64, log *slog.Logger) (*Prepared, error) {
	s := &Prepared{gold: gold, reserve: reserve, log: log}
	if err := errors.Join(s.removeTemporary(), s.sweep(context.Background())); err != nil {
		return nil, fmt.Errorf("sweeping prepared disks: %w", err)
	}
	return s, nil
}

// removeTemporary removes the files that an earlier daemon did not finish. The
// path of the folder is no part of the pattern: it may be /srv/[ci].
func (s *Prepared) removeTemporary() error {
	if s.gold == "" {
		return nil
	}
	left, err := fs.Glob(os.DirFS(s.folder("")), "*/"+tempPrefix+"*")
	for _, path := range left {
		err = errors.Join(err, os.Remove(s.folder(path)))
	}
	return err
}

func (s *Prepared) folder(image string) string {
	return filepath.Join(filepath.Dir(s.gold), vm.PreparedFolder, image)
}

// Prepare sets Base of each slow disk of the image whose .vmx is at gold. If
// several callers need the same file, one of them creates it. If a file cannot be
// created for want of space or time, Base stays empty, Unprepared says why, and the
// machine reads the VMDK. An ended context is an error, and so is a disk whose contents qemu-img
// cannot read: a *vm.Error with [vm.CodeImageInvalid].
func (s *Prepared) Prepare(ctx context.Context, gold string, disks []Disk) error {
	rel, err := filepath.Rel(s.gold, gold)
	if s.gold == "" || err != nil || !filepath.IsLocal(rel) {
		return nil
	}
	image, _, _ := strings.Cut(rel, string(filepath.Separator))
	if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("cannot remove prepared disks of images that are gone", "err", err)
	}
	unlock, err := s.locks.Lock(ctx, image)
	if err != nil {
		return err
	}
	defer unlock()
	for i := range disks {
		d := &disks[i]
		if !d.slow {
			continue
		}
		base := filepath.Join(s.folder(image), baseName(s.gold, d.Backing[0]))
		err := s.ensure(ctx, base, d)
		switch {
		case err == nil:
			d.Base = base
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errEmptyDisk):
		case isUnreadable(err):
			return unreadableDisk(d, err)
		default:
			d.Unprepared = err.Error()
			s.log.Warn("disk not prepared; machines read the image's own file, which is slower", "image", image, "disk", d.Slot(), "err", err)
		}
	}
	return nil
}

// baseName returns the name of a prepared disk's file, which depends on the
// disk's path in its image.
func baseName(gold, vmdk string) string {
	sum := sha256.Sum256([]byte(strings.TrimPrefix(vmdk, gold)))
	return hex.EncodeToString(sum[:16]) + ".qcow2"
}

// ensure creates one file unless it exists.
func (s *Prepared) ensure(ctx context.Context, base string, d *Disk) error {
	if _, err := os.Stat(base); err == nil {
		return nil
	}
	vmdk, err := os.Stat(d.Backing[0])
	if err != nil {
		return err
	}
	if v, known := s.failures.Load(base); known {
		if f := v.(*conversionFailure); os.SameFile(f.vmdk, vmdk) && f.vmdk.ModTime().Equal(vmdk.ModTime()) {
			return f.err
		}
	}
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil { // #nosec G301 -- a hypervisor of another user reads it
		return err
	}
	started := time.Now()
	size, err := s.convert(ctx, base, d)
	var broken *CommandError
	var refused *vmx.CheckError
	lasting := errors.Is(err, errEmptyDisk) || errors.As(err, &refused) || errors.As(err, &broken) && FullError(err) == err
	if lasting && ctx.Err() == nil {
		s.failures.Store(base, &conversionFailure{vmdk: vmdk, err: err})
	}
	if err == nil {
		s.log.Info("disk prepared", "image", filepath.Base(filepath.Dir(base)), "disk", d.Slot(), "size", humanize.IBytes(uint64(size)), "after", time.Since(started).Round(time.Millisecond))
	}
	return err
}

// convert writes a temporary file and renames it to base once it is complete. It
// returns the file's size.
func (s *Prepared) convert(ctx context.Context, base string, d *Disk) (size int64, err error) {
	allocated, err := d.allocated()
	if err != nil {
		return 0, err
	}
	if allocated == 0 {
		return 0, errEmptyDisk
	}
	bound := convertBound(allocated, d.Size)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Duration(bound)*time.Second)
	defer cancel()
	tool := &imageTool{seconds: bound, bytes: convertSlack}
	defer tool.close()
	chain, err := vmdkChain(d.Backing, tool.give)
	if err != nil {
		return 0, err
	}
	source := "json:" + jsonText(chain)
	out, err := tool.run(ctx, "measuring disk "+d.Slot(), "measure", "--output=json", "-O", "qcow2", source)
	if err != nil {
		return 0, err
	}
	var measured struct{ Required int64 }
	if err := json.Unmarshal([]byte(out), &measured); err != nil {
		return 0, fmt.Errorf("measuring disk %s: %w", d.Slot(), err)
	}
	if err := s.checkSpace(filepath.Dir(base), measured.Required); err != nil {
		return 0, err
	}
	f, err := os.CreateTemp(filepath.Dir(base), tempPrefix)
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name()) // fails once it was renamed
	defer f.Close()
	tool.bytes = measured.Required + convertSlack
	if _, err = tool.run(ctx, "preparing disk "+d.Slot(), "convert", "-O", "qcow2", source, tool.giveTarget(f)); err != nil {
		return 0, err
	}
	if err := errors.Join(f.Chmod(0o444), f.Sync()); err != nil {
		return 0, err
	}
	if err := os.Rename(f.Name(), base); err != nil {
		return 0, err
	}
	return measured.Required, vm.SyncPath(filepath.Dir(base))
}

// convertBound returns the seconds of processor time for a disk of this size with
// so many bytes of data.
func convertBound(allocated, size int64) int64 {
	return convertSeconds + convertSecondsPerGiB*((allocated+1<<30-1)>>30) + (size>>30)/convertGiBPerSecond
}

// checkSpace returns an error if need bytes do not fit beside the host's reserve.
func (s *Prepared) checkSpace(dir string, need int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("reading the free disk space: %w", err)
	}
	free := int64(st.Bavail) * int64(st.Bsize) // #nosec G115
	if free-s.reserve < need {
		return fmt.Errorf("the disk has %s free, of which %s are reserved for the host; the prepared disk needs %s",
			humanize.IBytes(uint64(free)), humanize.IBytes(uint64(s.reserve)), humanize.IBytes(uint64(need)))
	}
	return nil
}

// sweep removes prepared disks of images that are gone. It takes each image's
// lock, so it does not disturb a conversion.
func (s *Prepared) sweep(ctx context.Context) error {
	if s.gold == "" {
		return nil
	}
	entries, err := os.ReadDir(s.folder(""))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, s.sweepImage(ctx, e.Name()))
	}
	return err
}

func (s *Prepared) sweepImage(ctx context.Context, image string) error {
	if _, err := os.Lstat(filepath.Join(s.gold, image)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	unlock, err := s.locks.Lock(ctx, image)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Lstat(filepath.Join(s.gold, image)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(s.folder(image))
}

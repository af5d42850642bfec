package qemu

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
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"osx-builder/vm"
	"osx-builder/vm/qemu/keyedmutex"
)

const (
	// PreparedFolder is beside the folder of gold images. In it each has a
	// folder of its name, with a qcow2 file for each disk that was prepared.
	PreparedFolder = "prepared"

	// unfinished begins the name of a file that is being written.
	tempPrefix = ".new-"

	// convertMemory bounds the address space of a qemu-img that reads an
	// image's disk, in KiB. It maps about 120 MiB, and 8 MiB for the stack of
	// each of up to 64 threads, of which it starts more the slower the host's
	// disk is. It ends itself when it cannot start one, so all must fit.
	convertMemory = 1 << 20

	// oneArena makes the C library of qemu-img allocate from one arena. With
	// others each thread may reserve 64 MiB for one of its own, so that a dozen
	// threads exceed convertMemory.
	oneArena = "MALLOC_ARENA_MAX=1"

	// convertSeconds is the processor time that a qemu-img gets, beside
	// convertSecondsPerGiB: ten times what it needs.
	convertSeconds       = 60
	convertSecondsPerGiB = 35

	// convertSlack is how much a converted disk may be larger than foreseen.
	convertSlack = 64 << 20
)

// stable makes qcow2 files of the disks of gold images that are slow to be
// read: a guest reads a streamOptimized VMDK through qemu 7 to 20 times slower
// than qcow2, since each read inflates 64 KiB, and a sparse one up to 3 times,
// since QEMU serves one read of it at a time. The conversion takes as long as a
// few hundred guest MiB read from the VMDK do, so that it pays before the first
// machine is there; that is when it is done.
//
// What is made from an image goes with it, which is the image cache's to do; a
// folder whose image has gone otherwise is removed when a driver is opened and
// when a disk is prepared.
type preparedDisks struct {
	gold    string // absolute path of the folder with the gold images; "" prepares none
	reserve int64  // bytes of the disk that are left to the host
	log     *slog.Logger

	locks    keyedmutex.Mutex // by image
	failures sync.Map         // *failure by the file that qemu-img could not make
}

// failure keeps a daemon from reading a disk again that qemu-img could not
// read. It does not hold for the same image when that is fetched again.
type conversionFailure struct {
	vmdk os.FileInfo // the disk's file as it was
	err  error
}

// openStable sweeps what was interrupted.
func openPreparedDisks(gold string, reserve int64, log *slog.Logger) (*preparedDisks, error) {
	s := &preparedDisks{gold: gold, reserve: reserve, log: log}
	left, err := filepath.Glob(filepath.Join(s.folder("*"), tempPrefix+"*"))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	if err = errors.Join(err, s.sweep(context.Background())); err != nil {
		return nil, fmt.Errorf("sweeping prepared disks: %w", err)
	}
	return s, nil
}

func (s *preparedDisks) folder(image string) string {
	return filepath.Join(filepath.Dir(s.gold), PreparedFolder, image)
}

// prepare gives each slow disk of the image whose .vmx is at gold its qcow2
// file, which many may ask for at once and one then makes. Where there can be
// none, as on a disk that is nearly full, the machine reads the VMDK; only an
// ended context is an error.
func (s *preparedDisks) prepare(ctx context.Context, gold string, disks []disk) error {
	rel, err := filepath.Rel(s.gold, gold)
	if s.gold == "" || err != nil || !filepath.IsLocal(rel) {
		return nil
	}
	image, _, _ := strings.Cut(rel, string(filepath.Separator))
	if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("prepared disks of images that are gone not removed", "err", err)
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
		err := s.ensure(ctx, base, *d)
		switch {
		case err == nil:
			d.Base = base
		case ctx.Err() != nil:
			return context.Cause(ctx)
		default:
			s.log.Warn("disk not prepared; machines read the image's own file, which is slower", "image", image, "disk", d.slot(), "err", err)
		}
	}
	return nil
}

// baseName is the name of the file that is made of a disk: from the disk's
// path in its image.
func baseName(gold, vmdk string) string {
	sum := sha256.Sum256([]byte(strings.TrimPrefix(vmdk, gold)))
	return hex.EncodeToString(sum[:16]) + ".qcow2"
}

// ensure makes one file, unless it is there.
func (s *preparedDisks) ensure(ctx context.Context, base string, d disk) error {
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
	var broken *commandError
	if errors.As(err, &broken) && ctx.Err() == nil && diskFull(err) == err {
		s.failures.Store(base, &conversionFailure{vmdk: vmdk, err: err})
	}
	if err == nil {
		s.log.Info("disk prepared", "image", filepath.Base(filepath.Dir(base)), "disk", d.slot(), "size", humanize.IBytes(uint64(size)), "after", time.Since(started).Round(time.Millisecond))
	}
	return err
}

// convert writes the file beside its place and gives it its name last. It
// returns its size.
func (s *preparedDisks) convert(ctx context.Context, base string, d disk) (size int64, err error) {
	source := "json:" + jsonText(vmdkChain(d.Backing).(map[string]any))
	bound := convertSeconds + convertSecondsPerGiB*(d.Size>>30)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Duration(bound)*time.Second)
	defer cancel()
	out, err := limited(ctx, bound, convertSlack, "measure", "--output=json", "-O", "qcow2", source)
	if err != nil {
		return 0, &commandError{what: "measuring disk " + d.slot(), stderr: out, err: err}
	}
	var measured struct{ Required int64 }
	if err := json.Unmarshal([]byte(out), &measured); err != nil {
		return 0, fmt.Errorf("measuring disk %s: %w", d.slot(), err)
	}
	if err := s.checkSpace(filepath.Dir(base), measured.Required); err != nil {
		return 0, err
	}
	f, err := os.CreateTemp(filepath.Dir(base), tempPrefix)
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name()) // fails where it got its name
	defer f.Close()
	if out, err = limited(ctx, bound, measured.Required+convertSlack, "convert", "-O", "qcow2", source, f.Name()); err != nil {
		return 0, &commandError{what: "preparing disk " + d.slot(), stderr: out, err: err}
	}
	if err := errors.Join(f.Chmod(0o444), f.Sync()); err != nil {
		return 0, err
	}
	if err := os.Rename(f.Name(), base); err != nil {
		return 0, err
	}
	return measured.Required, vm.SyncPath(filepath.Dir(base))
}

// room fails where need bytes would touch the host's reserve.
func (s *preparedDisks) checkSpace(dir string, need int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("asking for free disk space: %w", err)
	}
	free := int64(st.Bavail) * int64(st.Bsize) // #nosec G115
	if free-s.reserve < need {
		return fmt.Errorf("the disk has %s free, of which %s stay the host's, and %s are needed",
			humanize.IBytes(uint64(free)), humanize.IBytes(uint64(s.reserve)), humanize.IBytes(uint64(need)))
	}
	return nil
}

// limited runs qemu-img on a file that a stranger made, with bounds on its
// processor time, its memory and what it writes: the shell sets those that the
// system has (macOS has none on memory) and becomes qemu-img. It returns what
// that says, on either output.
func limited(ctx context.Context, seconds, bytes int64, args ...string) (string, error) {
	script := fmt.Sprintf(`ulimit -v %d 2>/dev/null; ulimit -t %d; ulimit -f %d; ulimit -c 0; exec %s "$@"`, convertMemory, seconds, bytes/512, imageTool)
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", script, "sh"}, args...)...)
	cmd.Env = append(os.Environ(), oneArena)
	cmd.WaitDelay = time.Second
	var out []byte
	err := withoutAmbient(func() (err error) { out, err = cmd.CombinedOutput(); return err })
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return strings.TrimSpace(string(out)), err
}

// sweep removes what was made from images that are gone. Nobody makes or takes
// such a file meanwhile: machines have their turn, and their image.
func (s *preparedDisks) sweep(ctx context.Context) error {
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

func (s *preparedDisks) sweepImage(ctx context.Context, image string) error {
	if _, err := os.Lstat(filepath.Join(s.gold, image)); !missing(err) {
		return err
	}
	unlock, err := s.locks.Lock(ctx, image)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Lstat(filepath.Join(s.gold, image)); !missing(err) {
		return err
	}
	return os.RemoveAll(s.folder(image))
}

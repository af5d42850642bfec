//go:build vix && cgo && !windows

package vix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"osx-builder/vm"
)

// snapshotName is the snapshot of a base that its clones start from.
const snapshotName = "osx-builder"

// baseFolder keeps a base apart from what others make of the image.
const baseFolder = "vmware"

// base is the machine that the clones of one image are clones of. Its folder:
//
//	base.json      written last: all else is there
//	machine/       the machine, with the name and the disks of the image
//	clones/<id>    an empty file for each machine that is a clone of it
type base struct {
	dir  string
	gold string // the image's .vmx
}

// baseState is base.json.
type baseState struct {
	Gold   string // the image's .vmx
	Shared bool   // disks are other names of the image's read-only files
}

// base is that of the image whose .vmx is at gold.
func (d *Driver) base(gold string) (base, error) {
	rel, err := filepath.Rel(d.Gold, gold)
	image, _, inside := strings.Cut(rel, string(filepath.Separator))
	if err != nil || !inside || !filepath.IsLocal(rel) {
		return base{}, fmt.Errorf("the image %s is not in %s", gold, d.Gold)
	}
	return base{dir: d.baseDir(image), gold: gold}, nil
}

// baseDir is where the base of an image of that name is.
func (d *Driver) baseDir(image string) string { return filepath.Join(d.Dir, image, baseFolder) }

// vmx keeps the image's name for its .vmx, which is the name of its list of
// snapshots too.
func (b base) vmx() string { return filepath.Join(b.dir, "machine", filepath.Base(b.gold)) }

func (b base) stateFile() string { return filepath.Join(b.dir, "base.json") }

// mark is the file that says that the machine of the given ID is a clone.
func (b base) mark(id string) string { return filepath.Join(b.dir, "clones", id) }

func (b base) state() (s baseState, err error) {
	data, err := os.ReadFile(b.stateFile())
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(data, &s)
}

// ensure makes the base unless it is there already. Whoever calls it holds the
// machine. Its disks are copies if it cannot be shared or copies are asked for.
func (d *Driver) ensureBase(ctx context.Context, b base, copies bool) error {
	switch _, err := b.state(); {
	case err == nil && !copies:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("reading %s: %w", b.stateFile(), err) // clones may need what is there
	}
	if err := b.clear(); err != nil {
		return err
	}
	// What others make of the image may be for other users, the base is not.
	if err := os.MkdirAll(filepath.Dir(b.dir), 0o755); err != nil { // #nosec G301 -- see above
		return err
	}
	if err := os.MkdirAll(filepath.Join(b.dir, "clones"), 0o700); err != nil {
		return err
	}
	shared, err := shareTree(ctx, filepath.Dir(b.gold), filepath.Join(b.dir, "machine"), copies)
	if err != nil {
		return err
	}
	if err := d.prepareBase(b); err != nil {
		return err
	}
	data, err := json.Marshal(baseState{Gold: b.gold, Shared: shared})
	if err != nil {
		return err
	}
	return vm.WriteFile(b.stateFile(), data)
}

// clear removes a half-made base. The marks of its clones stay.
func (b base) clear() error {
	for _, path := range []string{b.stateFile(), filepath.Join(b.dir, "machine")} {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("removing a half-made base: %w", err)
		}
	}
	return nil
}

// clearHalfMade removes the bases that a crash left half-made. Nothing may be at
// work on one.
func (d *Driver) clearHalfMade() error {
	entries, err := os.ReadDir(d.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		b := base{dir: d.baseDir(e.Name())}
		if _, err := b.state(); errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, b.clear())
			// These stay where there are marks of clones.
			_, _ = os.Remove(filepath.Join(b.dir, "clones")), b.removeEmpty()
		}
	}
	return errors.Join(errs...)
}

// leave takes the machine's mark from the base of its image, whichever it is.
func (d *Driver) leave(id string) error {
	marks, err := filepath.Glob(filepath.Join(globQuote(d.Dir), "*", baseFolder, "clones", globQuote(id)))
	if err != nil {
		return err
	}
	for _, mark := range marks {
		if err := os.Remove(mark); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Sweep implements [vm.Driver]: it takes the marks of machines that are not
// known from the bases.
func (d *Driver) Sweep(ctx context.Context, known func(id string) bool) error {
	marks, err := filepath.Glob(filepath.Join(globQuote(d.Dir), "*", baseFolder, "clones", "*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, mark := range marks {
		if id := filepath.Base(mark); !known(id) {
			errs = append(errs, d.leave(id))
		}
	}
	return errors.Join(append(errs, d.sweepImages(ctx))...)
}

// sweepImages removes the bases whose image is gone and that have no clones.
func (d *Driver) sweepImages(ctx context.Context) error {
	entries, err := os.ReadDir(d.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		b := base{dir: d.baseDir(e.Name())}
		s, err := b.state()
		if err != nil {
			continue // being made
		}
		b.gold = s.Gold
		if b.idle() {
			if err := d.removeBase(ctx, b); err != nil {
				errs = append(errs, fmt.Errorf("removing the base of %s: %w", b.gold, err))
			}
		}
	}
	return errors.Join(errs...)
}

// sweep is sweepImages where what is left is left for the next time.
func (d *Driver) sweep(ctx context.Context) {
	if err := d.sweepImages(ctx); err != nil {
		d.Log.Warn("bases of clones not swept", "err", err)
	}
}

// idle reports whether the base is of no more use.
func (b base) idle() bool {
	if _, err := os.Stat(b.gold); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	clones, err := os.ReadDir(filepath.Join(b.dir, "clones"))
	return err == nil && len(clones) == 0
}

func (d *Driver) removeBase(ctx context.Context, b base) error {
	h, err := d.take(ctx, b.vmx(), d.Deadlines.Look)
	if err != nil {
		return err
	}
	defer h.drop()
	if !b.idle() {
		return nil
	}
	if err := b.clear(); err != nil {
		return err
	}
	d.Log.Info("base of clones removed with its image", "image", b.gold)
	if err := os.RemoveAll(b.dir); err != nil {
		return err
	}
	_ = b.removeEmpty()
	return nil
}

// removeEmpty removes the base's folder, and that of the image around it, where
// nothing is in them.
func (b base) removeEmpty() error {
	_ = os.Remove(b.dir)
	return os.Remove(filepath.Dir(b.dir))
}

// missingImage is the error for a gold image that cannot be read.
func missingImage(err error) error {
	return &vm.Error{Code: vm.CodeImageInvalid, Message: fmt.Sprintf("the image cannot be read: %v", err), Err: err}
}

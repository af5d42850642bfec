package vmware

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"osx-builder/vm"
)

// SnapshotName is the snapshot of a base that its clones start from.
const SnapshotName = "osx-builder"

// baseFolder separates a base from what other drivers derive from the image.
const baseFolder = "vmware"

// Bases holds the base machines, one for each image. Its methods may be called concurrently.
type Bases struct {
	Dir  string // the folder of the bases; see [Options]
	Gold string // the folder with the unpacked images
	Log  *slog.Logger

	Locks *Locks

	// Acquire waits until no other goroutine uses the machine whose .vmx is at path.
	Acquire func(ctx context.Context, path string) (Acquired, error)
}

// Acquired is the right to use a machine, which nobody else has meanwhile. Its owner calls Release once.
type Acquired interface{ Release() }

// Base is the machine that the clones of one image are made of. Its folder:
//
//	base.json      written last: if it exists, the base is complete
//	machine/       the machine, with the image's name and disks
//	clones/<id>    an empty file for each clone, its marker
type Base struct {
	dir  string
	gold string // the image's .vmx
}

// baseState is base.json.
type baseState struct {
	Gold   string // the image's .vmx
	Shared bool   // the disks are hard links of the image's read-only files
}

// Open creates the folder of the bases if it is absent, and removes bases that a crash left incomplete or that are no
// longer needed. No base may be in use.
func (s *Bases) Open(ctx context.Context) error {
	if err := errors.Join(os.MkdirAll(s.Dir, 0o755), s.removeUnfinished()); err != nil { // #nosec G301 -- see ensure
		return fmt.Errorf("preparing the folder of the base machines: %w", err)
	}
	s.RemoveUnused(ctx)
	return nil
}

// of returns the base of the image whose .vmx is at gold.
func (s *Bases) of(gold string) (Base, error) {
	rel, err := filepath.Rel(s.Gold, gold)
	image, _, inside := strings.Cut(rel, string(filepath.Separator))
	if err != nil || !inside || !filepath.IsLocal(rel) {
		return Base{}, fmt.Errorf("the image %s is not in %s", gold, s.Gold)
	}
	return Base{dir: s.baseDir(image), gold: gold}, nil
}

// baseDir returns the folder of the base of an image.
func (s *Bases) baseDir(image string) string { return filepath.Join(s.Dir, image, baseFolder) }

// VMX returns the path of the .vmx. It has the name of the image's .vmx, which is also the name of the snapshot list.
func (b Base) VMX() string { return filepath.Join(b.dir, "machine", filepath.Base(b.gold)) }

func (b Base) stateFile() string { return filepath.Join(b.dir, "base.json") }

// marker returns the path of the file that marks the machine with this ID as a clone.
func (b Base) marker(id string) string { return filepath.Join(b.dir, "clones", id) }

func (b Base) state() (s baseState, err error) {
	data, err := os.ReadFile(b.stateFile())
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(data, &s)
}

// ensure creates the base if it does not exist. If copies is true, it creates the base again with copies of the disks.
// The caller has acquired the base machine.
func (s *Bases) ensure(ctx context.Context, b Base, copies bool) error {
	switch _, err := b.state(); {
	case err == nil && !copies:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("reading %s: %w", b.stateFile(), err) // the base may have clones
	}
	if err := b.remove(); err != nil {
		return err
	}
	// Other users may need what other drivers derive from the image, so only the base is private.
	if err := os.MkdirAll(filepath.Dir(b.dir), 0o755); err != nil { // #nosec G301 -- see above
		return err
	}
	if err := os.MkdirAll(filepath.Join(b.dir, "clones"), 0o700); err != nil {
		return err
	}
	shared, err := copyTree(ctx, filepath.Dir(b.gold), filepath.Join(b.dir, "machine"), copies)
	if err != nil {
		return err
	}
	if err := s.writeVMX(b); err != nil {
		return err
	}
	data, err := json.Marshal(baseState{Gold: b.gold, Shared: shared})
	if err != nil {
		return err
	}
	return vm.WriteFile(b.stateFile(), data)
}

// remove removes the base. The markers of its clones stay.
func (b Base) remove() error {
	for _, path := range []string{b.stateFile(), filepath.Join(b.dir, "machine")} {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("removing a base machine: %w", err)
		}
	}
	return nil
}

// removeUnfinished removes the bases that a crash left incomplete.
func (s *Bases) removeUnfinished() error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		b := Base{dir: s.baseDir(e.Name())}
		if _, err := b.state(); errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, b.remove())
			// If there are markers of clones, the folders stay.
			_, _ = os.Remove(filepath.Join(b.dir, "clones")), b.removeFolders()
		}
	}
	return errors.Join(errs...)
}

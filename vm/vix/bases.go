//go:build vix && cgo && !windows

package vix

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

// snapshotName is the snapshot of a base that its clones start from.
const snapshotName = "osx-builder"

// baseFolder separates a base from what other drivers derive from the image.
const baseFolder = "vmware"

// baseStore holds the base machines, one for each image.
type baseStore struct {
	dir  string // Options.Dir
	gold string // the folder with the unpacked images
	vms  *openVMs
	log  *slog.Logger
}

// base is the machine that the clones of one image are made of. Its folder:
//
//	base.json      written last: if it exists, the base is complete
//	machine/       the machine, with the image's name and disks
//	clones/<id>    an empty file for each clone, its marker
type base struct {
	dir  string
	gold string // the image's .vmx
}

// baseState is base.json.
type baseState struct {
	Gold   string // the image's .vmx
	Shared bool   // the disks are hard links of the image's read-only files
}

// of returns the base of the image whose .vmx is at gold.
func (s *baseStore) of(gold string) (base, error) {
	rel, err := filepath.Rel(s.gold, gold)
	image, _, inside := strings.Cut(rel, string(filepath.Separator))
	if err != nil || !inside || !filepath.IsLocal(rel) {
		return base{}, fmt.Errorf("the image %s is not in %s", gold, s.gold)
	}
	return base{dir: s.baseDir(image), gold: gold}, nil
}

// baseDir returns the folder of the base of an image.
func (s *baseStore) baseDir(image string) string { return filepath.Join(s.dir, image, baseFolder) }

// vmx returns the path of the .vmx. It has the name of the image's .vmx, which is also the name of the snapshot list.
func (b base) vmx() string { return filepath.Join(b.dir, "machine", filepath.Base(b.gold)) }

func (b base) stateFile() string { return filepath.Join(b.dir, "base.json") }

// marker returns the path of the file that marks the machine with this ID as a clone.
func (b base) marker(id string) string { return filepath.Join(b.dir, "clones", id) }

func (b base) state() (s baseState, err error) {
	data, err := os.ReadFile(b.stateFile())
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(data, &s)
}

// ensure creates the base if it does not exist. If copies is true, it creates the base again with copies of the disks.
// The caller has acquired the base machine.
func (s *baseStore) ensure(ctx context.Context, b base, copies bool) error {
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
func (b base) remove() error {
	for _, path := range []string{b.stateFile(), filepath.Join(b.dir, "machine")} {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("removing a base machine: %w", err)
		}
	}
	return nil
}

// removeUnfinished removes the bases that a crash left incomplete. No base may be in use.
func (s *baseStore) removeUnfinished() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		b := base{dir: s.baseDir(e.Name())}
		if _, err := b.state(); errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, b.remove())
			// If there are markers of clones, the folders stay.
			_, _ = os.Remove(filepath.Join(b.dir, "clones")), b.removeFolders()
		}
	}
	return errors.Join(errs...)
}

// removeMarker removes a machine's marker, whatever its image.
func (s *baseStore) removeMarker(id string) error {
	markers, err := filepath.Glob(filepath.Join(globQuote(s.dir), "*", baseFolder, "clones", globQuote(id)))
	if err != nil {
		return err
	}
	for _, marker := range markers {
		if err := os.Remove(marker); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// sweepMarkers removes the markers of machines that are not known.
func (s *baseStore) sweepMarkers(known func(id string) bool) error {
	markers, err := filepath.Glob(filepath.Join(globQuote(s.dir), "*", baseFolder, "clones", "*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, marker := range markers {
		if id := filepath.Base(marker); !known(id) {
			errs = append(errs, s.removeMarker(id))
		}
	}
	return errors.Join(errs...)
}

// removeUnused removes the bases without clones whose image is gone.
func (s *baseStore) removeUnused(ctx context.Context) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		b := base{dir: s.baseDir(e.Name())}
		state, err := b.state()
		if err != nil {
			continue // not complete yet
		}
		b.gold = state.Gold
		if b.isUnused() {
			if err := s.remove(ctx, b); err != nil {
				errs = append(errs, fmt.Errorf("removing the base of %s: %w", b.gold, err))
			}
		}
	}
	return errors.Join(errs...)
}

// sweep is [baseStore.removeUnused] with the error in the log: the next sweep tries again.
func (s *baseStore) sweep(ctx context.Context) {
	if err := s.removeUnused(ctx); err != nil {
		s.log.Warn("base machines not removed", "err", err)
	}
}

// isUnused reports whether the base has no clones and its image is gone.
func (b base) isUnused() bool {
	if _, err := os.Stat(b.gold); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	clones, err := os.ReadDir(filepath.Join(b.dir, "clones"))
	return err == nil && len(clones) == 0
}

// hasOnlyClone reports whether the machine with this ID is the only clone of b.
func (b base) hasOnlyClone(id string) bool {
	clones, err := os.ReadDir(filepath.Dir(b.marker(id)))
	return err == nil && len(clones) == 1 && clones[0].Name() == id
}

// remove removes a base with its folders, if it is still unused.
func (s *baseStore) remove(ctx context.Context, b base) error {
	ref, err := s.vms.acquire(ctx, b.vmx(), s.vms.conn.deadlines.Read)
	if err != nil {
		return err
	}
	defer ref.release()
	if !b.isUnused() {
		return nil
	}
	if err := b.remove(); err != nil {
		return err
	}
	s.log.Info("removed the base machine of a removed image", "image", b.gold)
	if err := os.RemoveAll(b.dir); err != nil {
		return err
	}
	_ = b.removeFolders()
	return nil
}

// removeFolders removes the base's folder and the image's folder around it, if they are empty.
func (b base) removeFolders() error {
	_ = os.Remove(b.dir)
	return os.Remove(filepath.Dir(b.dir))
}

// unreadableImage is the error for an image that cannot be read.
func unreadableImage(err error) error {
	return &vm.Error{Code: vm.CodeImageInvalid, Message: fmt.Sprintf("the image cannot be read: %v", err), Err: err}
}

// globQuote returns a pattern for [filepath.Glob] that matches only path.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

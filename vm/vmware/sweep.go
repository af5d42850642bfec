package vmware

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// RemoveMarker removes a machine's marker, whatever its image.
func (s *Bases) RemoveMarker(id string) error {
	markers, err := filepath.Glob(filepath.Join(globQuote(s.Dir), "*", baseFolder, "clones", globQuote(id)))
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

// Sweep removes the markers of machines that are not known, and the bases that are no longer needed.
func (s *Bases) Sweep(ctx context.Context, known func(id string) bool) error {
	return errors.Join(s.sweepMarkers(known), s.removeUnused(ctx))
}

// sweepMarkers removes the markers of machines that are not known.
func (s *Bases) sweepMarkers(known func(id string) bool) error {
	markers, err := filepath.Glob(filepath.Join(globQuote(s.Dir), "*", baseFolder, "clones", "*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, marker := range markers {
		if id := filepath.Base(marker); !known(id) {
			errs = append(errs, s.RemoveMarker(id))
		}
	}
	return errors.Join(errs...)
}

// removeUnused removes the bases without clones whose image is gone.
func (s *Bases) removeUnused(ctx context.Context) error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		b := Base{dir: s.baseDir(e.Name())}
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

// RemoveUnused is [Bases.removeUnused] with the error in the log: the next sweep tries again.
func (s *Bases) RemoveUnused(ctx context.Context) {
	if err := s.removeUnused(ctx); err != nil {
		s.Log.Warn("base machines not removed", "err", err)
	}
}

// isUnused reports whether the base has no clones and its image is gone.
func (b Base) isUnused() bool {
	if _, err := os.Stat(b.gold); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	clones, err := os.ReadDir(filepath.Join(b.dir, "clones"))
	return err == nil && len(clones) == 0
}

// hasOnlyClone reports whether the machine with this ID is the only clone of b.
func (b Base) hasOnlyClone(id string) bool {
	clones, err := os.ReadDir(filepath.Dir(b.marker(id)))
	return err == nil && len(clones) == 1 && clones[0].Name() == id
}

// remove removes a base with its folders, if it is still unused.
func (s *Bases) remove(ctx context.Context, b Base) error {
	acquired, err := s.Acquire(ctx, b.VMX())
	if err != nil {
		return err
	}
	defer acquired.Release()
	if !b.isUnused() {
		return nil
	}
	if err := b.remove(); err != nil {
		return err
	}
	s.Log.Info("removed the base machine of a removed image", "image", b.gold)
	if err := os.RemoveAll(b.dir); err != nil {
		return err
	}
	_ = b.removeFolders()
	return nil
}

// removeFolders removes the base's folder and the image's folder around it, if they are empty.
func (b Base) removeFolders() error {
	_ = os.Remove(b.dir)
	return os.Remove(filepath.Dir(b.dir))
}

// globQuote returns a pattern for [filepath.Glob] that matches only path.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

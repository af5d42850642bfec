package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"osx-builder/image"
)

const (
	recordSuffix    = ".json"
	tombstoneSuffix = ".tombstone.json"

	// corruptSuffix is added to the name of a record that is set aside.
	corruptSuffix = ".corrupt"
)

// store keeps the records in dir/<id>.json, those that cannot be read in
// dir/<id>.json.corrupt, and tombstones in dir/<id>.tombstone.json, where nobody
// who reads machines opens them.
//
// Only a machine's job changes its record, except for the expiry, which a client
// may change at the same time. The record's lock is held while it is changed, so
// that neither undoes what the other wrote.
type store struct {
	dir   string
	locks [256]sync.Mutex // each for one in 256 of the records
}

func (s *store) lock(id string) (unlock func()) {
	l := &s.locks[crc32.ChecksumIEEE([]byte(id))%uint32(len(s.locks))]
	l.Lock()
	return l.Unlock
}

func (s *store) path(id string) string { return filepath.Join(s.dir, id+recordSuffix) }

func (s *store) tombstonePath(id string) string { return filepath.Join(s.dir, id+tombstoneSuffix) }

// read returns an error that wraps fs.ErrNotExist if there is no record, and an
// *Error of CodeOpen if it cannot be read.
func (s *store) read(id string) (*record, error) {
	path := s.path(id)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, aside := os.Lstat(path + corruptSuffix); aside != nil {
			return nil, err
		}
		path, err = path+corruptSuffix, errCorrupt
	}
	var r *record
	if err == nil {
		r, err = decode(b, id)
	}
	if err != nil {
		return nil, &Error{
			Code:    CodeOpen,
			Message: fmt.Sprintf("the record %s cannot be read: %v; DELETE /vms/%s removes the machine", path, err, id),
			Err:     err,
		}
	}
	return r, nil
}

// readTombstone reads the tombstone of a destroyed machine. Its errors wrap
// fs.ErrNotExist, errCorrupt or errNewer.
func (s *store) readTombstone(id string) (*record, error) {
	b, err := os.ReadFile(s.tombstonePath(id))
	if err != nil {
		return nil, err
	}
	r, err := decode(b, id)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.tombstonePath(id), err)
	}
	r.Gone = true
	return r, nil
}

// makeTombstone replaces the record of a destroyed machine by its tombstone. The
// tombstone comes first: a crash in between leaves both, and the next start
// removes the record. After an error the machine still has its record.
func (s *store) makeTombstone(r *record) error {
	gone := *r
	gone.Gone = true
	if err := s.write(&gone); err != nil {
		return err
	}
	if err := s.removeRecord(r.ID); err != nil {
		return err
	}
	r.Gone = true
	return nil
}

// get reads the record of a machine that exists. One that an earlier version
// marked as a tombstone does not, and is an error of CodeNotFound.
func (s *store) get(id string) (*record, error) {
	if !ValidID(id) {
		return nil, notFound(id)
	}
	r, err := s.read(id)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && r.Gone) {
		return nil, notFound(id)
	}
	return r, err
}

// machine returns the record's machine for the driver. The annotation of a new
// machine is not in it.
func (s *store) machine(r *record) Machine {
	return Machine{
		ID: r.ID, Name: r.Spec.Name, Dir: filepath.Join(s.dir, r.ID),
		CPUs: r.Spec.CPUs, Memory: r.Spec.Memory, Disk: r.Spec.Disk, Network: r.Spec.Network, Forward: r.Spec.forward(), LaunchGUI: r.Spec.LaunchGUI, Start: r.Spec.Start, Guest: r.Spec.Guest,
	}
}

// setAside renames a corrupt record, which is kept for an operator to look at.
func setAside(path string) error {
	if err := os.Rename(path, path+corruptSuffix); err != nil {
		return err
	}
	return SyncPath(filepath.Dir(path))
}

// keep writes a record for the machine's job.
func (s *store) keep(r *record) error {
	defer s.lock(r.ID)()
	s.refresh(r)
	return s.write(r)
}

// refresh reads what others than the job may have changed.
func (s *store) refresh(r *record) {
	if now, err := s.read(r.ID); err == nil {
		r.Expiry = now.Expiry
	}
}

// change changes a record independently of its job.
func (s *store) change(id string, edit func(*record) error) (*record, error) {
	defer s.lock(id)()
	r, err := s.read(id)
	if err != nil {
		return nil, err
	}
	if err := edit(r); err != nil {
		return nil, err
	}
	return r, s.write(r)
}

// write replaces the record or the tombstone, which lacks the guest's secrets. See
// [WriteFile] for what a crash may leave.
func (s *store) write(r *record) error {
	if r.Gone {
		tombstone := *r
		tombstone.Spec.Guest = nil
		r = &tombstone
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if r.Gone {
		return WriteFile(s.tombstonePath(r.ID), b)
	}
	return WriteFile(s.path(r.ID), b)
}

// remove removes the record and the tombstone. It is a no-op if there is none.
func (s *store) remove(id string) error {
	return s.removeFiles(id, s.path(id)+corruptSuffix, s.path(id), s.tombstonePath(id))
}

// removeRecord removes the record, but not the tombstone.
func (s *store) removeRecord(id string) error {
	return s.removeFiles(id, s.path(id)+corruptSuffix, s.path(id))
}

func (s *store) removeFiles(id string, paths ...string) error {
	defer s.lock(id)()
	for _, path := range paths {
		if err := image.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the record of %s: %w", id, err)
		}
	}
	return SyncPath(s.dir)
}

// ids returns the machines that have a record, even one set aside.
func (s *store) ids() ([]string, error) {
	return s.named(func(name string) string { return strings.TrimSuffix(name, corruptSuffix) }, recordSuffix)
}

// tombstoneIDs returns the destroyed machines that have a tombstone.
func (s *store) tombstoneIDs() ([]string, error) {
	return s.named(func(name string) string { return name }, tombstoneSuffix)
}

// named returns the ids that together with the suffix are the name of a file,
// each once. It opens no file.
func (s *store) named(trim func(name string) string, suffix string) (ids []string, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for _, e := range entries {
		id, ok := strings.CutSuffix(trim(e.Name()), suffix)
		if ok && ValidID(id) && !e.IsDir() && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids, nil
}

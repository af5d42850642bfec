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
)

// corruptSuffix is added to the name of a record that is set aside.
const corruptSuffix = ".corrupt"

// store keeps the records in dir/<id>.json, and those that cannot be read in
// dir/<id>.json.corrupt.
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

func (s *store) path(id string) string { return filepath.Join(s.dir, id+".json") }

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

// get reads the record of a machine that exists: a tombstone's does not, and is
// an error of CodeNotFound.
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
		ID: r.ID, Dir: filepath.Join(s.dir, r.ID),
		CPUs: r.Spec.CPUs, Memory: r.Spec.Memory, Network: r.Spec.Network, Forward: r.Spec.Forward, LaunchGUI: r.Spec.LaunchGUI,
	}
}

// setAside renames a corrupt record, which is kept for an operator to look at.
func (s *store) setAside(id string) error {
	if err := os.Rename(s.path(id), s.path(id)+corruptSuffix); err != nil {
		return err
	}
	return SyncPath(s.dir)
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

// write replaces the record. See [WriteFile] for what a crash may leave.
func (s *store) write(r *record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(s.path(r.ID), b)
}

// remove removes the record. It is a no-op if there is none.
func (s *store) remove(id string) error {
	defer s.lock(id)()
	for _, path := range []string{s.path(id) + corruptSuffix, s.path(id)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the record of %s: %w", id, err)
		}
	}
	return SyncPath(s.dir)
}

// ids returns the machines that have a record, even one set aside, and the names
// of folders and files that belong to no record: a crash left them.
func (s *store) ids() (ids, litter []string, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, err
	}
	records := make(map[string]bool)
	for _, e := range entries {
		id, ok := strings.CutSuffix(strings.TrimSuffix(e.Name(), corruptSuffix), ".json")
		if ok && ValidID(id) && !e.IsDir() && !records[id] {
			records[id] = true
			ids = append(ids, id)
		}
	}
	for _, e := range entries {
		id := strings.TrimSuffix(strings.TrimSuffix(e.Name(), corruptSuffix), ".json")
		if !records[id] {
			litter = append(litter, e.Name())
		}
	}
	return ids, litter, nil
}

package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"osx-builder/vm"
)

// Files are what a template is made of. The files are renamed into it.
type Files struct {
	Disks  []string // of the guest, its QEMU has ended
	Empty  []string // an empty overlay over each
	Vars   string   // EFI's variables, or ""
	State  string   // of QEMU's devices
	Memory *os.File // sealed; the caller closes it
}

// Publish makes a template of the files. It replaces an older one of the same
// key. After a crash at any point there is a whole template or none.
func (s *Store) Publish(i Info, f Files) (err error) {
	if err := s.evict(int64(i.Memory) << 20); err != nil {
		return err
	}
	if err := os.MkdirAll(s.opts.Dir, 0o700); err != nil {
		return err
	}
	draft, err := os.MkdirTemp(s.opts.Dir, tempPrefix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(draft))
		}
	}()
	if err := fill(draft, i, f); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := errors.Join(s.unload(i.Key), removeTemplate(s.folder(i.Key))); err != nil {
		return err
	}
	if err := os.Rename(draft, s.folder(i.Key)); err != nil {
		return err
	}
	m := &memory{mib: i.Memory}
	m.once.Do(func() { m.file, m.err = Duplicate(f.Memory) })
	s.loaded[i.Key] = m
	return vm.SyncPath(s.opts.Dir)
}

// fill puts everything into the folder of a template and syncs it.
func fill(dir string, i Info, f Files) error {
	moves := map[string]string{f.State: stateFile}
	for n := range f.Disks {
		moves[f.Disks[n]], moves[f.Empty[n]] = diskName(n), emptyName(n)
	}
	if f.Vars != "" {
		moves[f.Vars] = VarsFile
	}
	for from, name := range moves {
		to := filepath.Join(dir, name)
		if err := os.Rename(from, to); err != nil {
			return err
		}
		if err := errors.Join(os.Chmod(to, 0o444), vm.SyncPath(to)); err != nil { // #nosec G302 -- nobody writes to it any more
			return err
		}
	}
	ram, err := os.OpenFile(filepath.Join(dir, ramFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	if err := errors.Join(copySparse(ram, f.Memory), ram.Sync(), ram.Close()); err != nil {
		return fmt.Errorf("saving the memory: %w", err)
	}
	b, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	return vm.WriteFile(filepath.Join(dir, infoFile), append(b, '\n'))
}

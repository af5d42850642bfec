package vm

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gofrs/flock"
)

// DataFolder is the folder in which one daemon keeps everything. It is locked as long as it is open.
type DataFolder struct {
	path string
	lock *flock.Flock
}

// PreparedFolder is the name of the folder beside that of gold images for what drivers make of them: for each image a
// folder of its name.
const PreparedFolder = "prepared"

// dataNames are the names that a data folder can contain without being used for anything else. lost+found is in each
// folder at which a disk is mounted.
var dataNames = []string{"images", "lock", "lock" + holderSuffix, "lost+found", "net", "pulls", "templates", "vms", "vmware-hosts.json"}

// OpenDataFolder creates the folder if it is absent, locks it for this process, and closes it to other users. holder
// says who uses it, for the error message of the next process that tries.
func OpenDataFolder(path, holder string, log *slog.Logger) (*DataFolder, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("creating the data folder: %w; choose another with -data", err)
	}
	name := filepath.Join(path, "lock")
	lock := flock.New(name, flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
	if !locked {
		other, _ := os.ReadFile(name + holderSuffix) // without it the message only says less
		return nil, fmt.Errorf("the data folder %s is in use by another osx-builder (%s); stop that one or choose another folder with -data",
			path, strings.TrimSpace(string(other)))
	}
	if err := os.WriteFile(name+holderSuffix, fmt.Appendf(nil, "process %d, %s\n", os.Getpid(), holder), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("writing %s: %w", name+holderSuffix, err), lock.Close())
	}
	if err := makePrivate(path, log); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	log.Info("data folder", "path", path)
	return &DataFolder{path: path, lock: lock}, nil
}

// hasOther returns the name of a file in the folder that a daemon does not make, or "". Others may need what is there.
func hasOther(path string) (name string, err error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if !slices.Contains(dataNames, e.Name()) {
			return e.Name(), nil
		}
	}
	return "", nil
}

// Path is the absolute path of the folder.
func (f *DataFolder) Path() string { return f.path }

// Machines is the folder with the records and the machines, for [Options].Dir.
func (f *DataFolder) Machines() string { return filepath.Join(f.path, "vms") }

// Images is the folder of the image cache.
func (f *DataFolder) Images() string { return filepath.Join(f.path, "images") }

// Gold is the folder with the unpacked images.
func (f *DataFolder) Gold() string { return filepath.Join(f.Images(), "gold") }

// Close unlocks the folder.
func (f *DataFolder) Close() error { return f.lock.Close() }

package vm_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/vm"
)

var noLog = slog.New(slog.DiscardHandler)

// Only one process can have the data folder, and its name is in the error of the next.
func TestDataFolderHasOneUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	f, err := vm.OpenDataFolder(path, "http://127.0.0.1:1", noLog)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: got %v, %v, want mode 0700", info, err)
	}
	_, err = vm.OpenDataFolder(path, "the second", noLog)
	if want := fmt.Sprintf("in use by another osx-builder (process %d, http://127.0.0.1:1)", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("opened twice: got %v, want %q", err, want)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f, err = vm.OpenDataFolder(path, "the third", noLog)
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDataFolderCannotBeCreated(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := vm.OpenDataFolder(filepath.Join(file, "data"), "", noLog)
	if err == nil || !strings.Contains(err.Error(), "-data") {
		t.Errorf("got %v, want an error that names -data", err)
	}
}

// A data folder that exists is closed to other users, unless it is used for other things too.
func TestDataFolderIsMadePrivate(t *testing.T) {
	for name, c := range map[string]struct {
		mode  os.FileMode
		files []string
		want  os.FileMode
	}{
		"empty":              {0o755, nil, 0o700},
		"of a daemon":        {0o755, []string{"vms", "images", "net", "lock"}, 0o700},
		"a mounted disk":     {0o755, []string{"lost+found"}, 0o700},
		"writable by others": {0o777, []string{"vms"}, 0o700},
		"private":            {0o700, []string{"notes"}, 0o700},
		"of others too":      {0o755, []string{"vms", "www"}, 0o755},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			for _, name := range c.files {
				if err := os.WriteFile(filepath.Join(path, name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			f, err := vm.OpenDataFolder(path, "a test", noLog)
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != c.want {
				t.Errorf("got %v, %v, want mode %#o", info.Mode(), err, c.want)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

package vm_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/vm"
)

// Only one process can have the data folder, and its name is in the error of the next.
func TestDataFolderHasOneUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	f, err := vm.OpenDataFolder(path, "http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: got %v, %v, want mode 0700", info, err)
	}
	_, err = vm.OpenDataFolder(path, "the second")
	if want := fmt.Sprintf("in use by another osx-builder (process %d, http://127.0.0.1:1)", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("opened twice: got %v, want %q", err, want)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f, err = vm.OpenDataFolder(path, "the third")
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
	_, err := vm.OpenDataFolder(filepath.Join(file, "data"), "")
	if err == nil || !strings.Contains(err.Error(), "-data") {
		t.Errorf("got %v, want an error that names -data", err)
	}
}

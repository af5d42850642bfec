package vm_test

import (
	"os"
	"path/filepath"
	"testing"

	"osx-builder/vm"
)

// WriteFile replaces a file and leaves nothing beside it, and fails without the folder.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, text := range []string{"first", "second"} {
		if err := vm.WriteFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("got %q, %v, want %q", got, err, text)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("got %v, %v, want the file alone", entries, err)
	}
	if err := vm.WriteFile(filepath.Join(dir, "none", "file"), nil); err == nil {
		t.Error("without the folder: got no error")
	}
}

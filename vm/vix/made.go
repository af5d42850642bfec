package vix

import (
	"os"
	"path/filepath"
)

// wholeName is the file that is written last into a clone's folder: where it
// is, all else is.
const wholeName = "osx-builder.json"

// Made reports whether the folder dir holds a machine that this package made.
// It needs no VIX support.
func Made(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, wholeName))
	return err == nil
}

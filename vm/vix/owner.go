package vix

import (
	"os"
	"path/filepath"
)

// completeName is the file that Clone writes last: if it exists, the machine is complete.
const completeName = "osx-builder.json"

// OwnsMachine reports whether the folder dir holds a machine of this driver. It works in binaries without VIX support.
func OwnsMachine(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, completeName))
	return err == nil
}

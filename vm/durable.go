package vm

import (
	"fmt"
	"path/filepath"

	"github.com/google/renameio/v2"

	"osx-builder/image"
)

// WriteFile replaces the file at path so that a crash or a loss of power leaves either the old file or the new one. It
// writes a temporary file, syncs it, renames it, and syncs the folder. The temporary file is in the same folder, where
// the next sweep of the folder finds it.
func WriteFile(path string, data []byte) error {
	if err := renameio.WriteFile(path, data, 0o600, renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return SyncPath(filepath.Dir(path))
}

// SyncPath is [image.SyncPath], for drivers, which do not import package image.
func SyncPath(path string) error { return image.SyncPath(path) }

// IsDiskFull is [image.IsDiskFull], for drivers, which do not import package image.
func IsDiskFull(err error) bool { return image.IsDiskFull(err) }

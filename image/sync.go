package image

import (
	"fmt"
	"path/filepath"
)

// WriteFile replaces the file at path so that a crash or a loss of power leaves either the old file or the new one. It
// writes a temporary file, syncs it, renames it, and syncs the folder. The temporary file is in the same folder, where
// the next sweep of the folder finds it. Readers see either file, and may read while it is replaced.
func WriteFile(path string, data []byte) error {
	if err := replaceFile(path, data); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return SyncPath(filepath.Dir(path))
}

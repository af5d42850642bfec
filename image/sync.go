package image

import (
	"errors"
	"fmt"
	"os"
)

// SyncPath makes a file's contents, or the names in a folder, survive a loss of power.
func SyncPath(path string) error {
	f, err := os.Open(path) // #nosec G304
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("syncing %s: %w", path, err)
	}
	return nil
}

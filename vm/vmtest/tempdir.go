package vmtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TempDir returns a new folder that is removed when the test ends, with the
// images in it. [testing.T.TempDir] leaves those to root, as their folders are
// read-only.
func TempDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return err
			}
			return os.Chmod(path, 0o700)
		})
		if err != nil {
			t.Error(err)
		}
	})
	return dir
}

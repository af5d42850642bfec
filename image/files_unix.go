//go:build !windows

package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// replaceFile replaces a file by one rename. It does not sync the folder.
func replaceFile(path string, data []byte) error {
	return renameio.WriteFile(path, data, 0o600, renameio.WithTempDir(filepath.Dir(path)))
}

// rename gives a file or a folder another name.
func rename(from, to string) error { return os.Rename(from, to) }

// Remove removes a file.
func Remove(path string) error { return os.Remove(path) }

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

// allowHoles makes what is not written of a new file take no space.
func allowHoles(*os.File) {}

// links counts a file's names.
func links(_ string, info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 1
}

// diskBytes is what a file takes on disk, which for one with holes is less
// than its size. stat counts in units of 512 bytes.
func diskBytes(_ string, info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// diskSpace returns the bytes of dir's file system, and those of them that this
// process may still use.
func diskSpace(dir string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("asking for free disk space: %w", err)
	}
	block := int64(st.Bsize) // #nosec G115
	return int64(st.Bavail) * block, int64(st.Blocks) * block, nil
}

// isFull reports whether the system refused to write because the disk or a quota is full.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

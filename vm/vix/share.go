//go:build vix && cgo && !windows

package vix

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// largeFile is the size in bytes from which files are shared and not copied.
// Disks are larger; what VMware writes to in a machine that never runs, such
// as disk descriptors and the list of snapshots, is smaller.
const largeFile = 1 << 20

// shareTree makes the folder to with the files of the folder from, but for
// logs and locks. Large files take no room where the file system can share
// them: as a copy on write or, unless copies are asked for, as another name of
// the same, read-only file. It reports whether there are such other names.
func shareTree(ctx context.Context, from, to string, copies bool) (shared bool, err error) {
	err = filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case e.IsDir() && strings.HasSuffix(rel, ".lck"):
			return fs.SkipDir
		case e.IsDir():
			return os.Mkdir(target, 0o700)
		case !e.Type().IsRegular() || strings.HasSuffix(rel, ".log") || strings.HasSuffix(rel, ".lck"):
			return nil
		}
		linked, err := shareFile(ctx, path, target, copies)
		shared = shared || linked
		return err
	})
	if err != nil {
		return false, fmt.Errorf("sharing the image's files: %w", err)
	}
	return shared, nil
}

func shareFile(ctx context.Context, from, to string, copies bool) (linked bool, err error) {
	info, err := os.Stat(from)
	if err != nil {
		return false, err
	}
	if info.Size() >= largeFile {
		if reflink(from, to) == nil {
			return false, nil
		}
		if !copies && os.Link(from, to) == nil {
			return true, nil
		}
	}
	return false, copyFile(ctx, from, to)
}

func copyFile(ctx context.Context, from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = src.Close() }) // ends the copying
	defer stop()
	_, err = io.Copy(dst, src)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return errors.Join(err, dst.Close())
}

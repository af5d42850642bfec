package vmware

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

// largeFile is the size in bytes from which files are shared instead of copied. Disks are larger. The files that VMware
// writes in a machine that never runs, such as disk descriptors and the list of snapshots, are smaller.
const largeFile = 1 << 20

// copyTree creates the folder to with the files of the folder from, except logs and locks. If the file system allows
// it, large files need no disk space: they are reflinks or, unless copies is true, hard links of the read-only files.
// copyTree reports whether there are hard links.
func copyTree(ctx context.Context, from, to string, copies bool) (linked bool, err error) {
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
		isLink, err := linkOrCopy(ctx, path, target, copies)
		linked = linked || isLink
		return err
	})
	if err != nil {
		return false, fmt.Errorf("copying the image's files: %w", err)
	}
	return linked, nil
}

func linkOrCopy(ctx context.Context, from, to string, copies bool) (linked bool, err error) {
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
	stop := context.AfterFunc(ctx, func() { _ = src.Close() }) // ends io.Copy
	defer stop()
	_, err = io.Copy(dst, src)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return errors.Join(err, dst.Close())
}

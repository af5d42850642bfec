package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// Files are the files of an unpacked image that [Options].Prepare may change. It is for
// one goroutine.
type Files struct {
	u *unpacker
}

// Root returns the image's folder. Its files may be read, and be written within their
// size.
func (f *Files) Root() *os.Root { return f.u.root }

// Find returns the path of the file that a slash-separated path names if letter case
// and the Unicode form of names do not count. There is at most one.
func (f *Files) Find(name string) (string, bool) {
	was, ok := f.u.names.seen[fold(path.Clean(name))]
	return was.name, ok && !was.dir
}

// Stored returns how the path in bytes of an unknown code page is called in the
// image's folder if the archive has it in those bytes.
func (f *Files) Stored(raw string) string { return fromCodePage(raw) }

// Create writes a new file, within the limits of the image. It reads body to its end.
// An error of body is returned as it is.
func (f *Files) Create(name string, body io.Reader) error {
	if err := f.u.count(); err != nil {
		return err
	}
	again, err := f.u.names.add(name, false)
	if err != nil {
		return err
	}
	if again {
		return fail(ErrInvalid, nil, "the image already has a file %s", quoted(name))
	}
	if err := f.u.mkdir(path.Dir(name)); err != nil {
		return err
	}
	f.u.tree.files = append(f.u.tree.files, name)
	return f.u.file(name, body)
}

// Remove removes a file.
func (f *Files) Remove(name string) error {
	if err := f.u.forget(name); err != nil {
		return err
	}
	delete(f.u.names.seen, fold(name))
	f.u.entries--
	return nil
}

// prepare lets Options.Prepare change the files of an unpacked image, and checks them.
func (c *Cache) prepare(u *unpacker, staging string) error {
	root, err := os.OpenRoot(staging)
	if err != nil {
		return fmt.Errorf("checking the image: %w", err)
	}
	defer root.Close()
	u.root = root
	if c.opts.Prepare != nil {
		vmx, err := c.opts.Prepare(u.ctx, &Files{u}, u.tree.vmx)
		if err != nil {
			return c.refused(u, err)
		}
		u.tree.vmx = vmx
	}
	if !strings.EqualFold(path.Ext(u.tree.vmx), ".vmx") {
		return fail(ErrInvalid, nil, "the image has no .vmx file among its %d files; it needs exactly one", len(u.tree.files))
	}
	if c.opts.Check == nil {
		return nil
	}
	return c.refused(u, c.opts.Check(root, u.tree.vmx))
}

// refused returns the error for an image that Options.Prepare or Options.Check refused.
func (c *Cache) refused(u *unpacker, err error) error {
	var f *failure
	if err == nil || errors.As(err, &f) {
		return err
	}
	if u.ctx.Err() != nil {
		return context.Cause(u.ctx)
	}
	if IsDiskFull(err) {
		return diskError(err)
	}
	var unsafe interface{ Unsafe() bool }
	if errors.As(err, &unsafe) && unsafe.Unsafe() {
		return fail(ErrUnsafe, err, "%v", err)
	}
	return fail(ErrInvalid, err, "%v", err)
}

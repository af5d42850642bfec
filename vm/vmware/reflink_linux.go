package vmware

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reflink creates the file to, which must not exist, as a copy-on-write copy of the file from. Few file systems support
// it.
func reflink(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())), dst.Close()); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

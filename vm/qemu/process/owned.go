package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrReplaced means that a file of a machine is not as the daemon created it, but a link, a device or a file with two
// names. Only a QEMU that a guest took over can have done that.
var ErrReplaced = errors.New("the file was replaced")

// OpenOwned opens a file that the daemon created and that a QEMU may have reached since. flag is as for [os.OpenFile]. If
// the name leads elsewhere, the error wraps [ErrReplaced].
func OpenOwned(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0) // neither follow a link nor wait for a pipe's writer
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("%w: %w", ErrReplaced, err)
	}
	if err != nil {
		return nil, err
	}
	if err := checkOwned(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return f, nil
}

func checkOwned(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil { // Fd also makes reads and writes wait again
		return os.NewSyscallError("fstat", err)
	}
	if fs.FileMode(st.Mode)&unix.S_IFMT != unix.S_IFREG || st.Nlink > 1 {
		return fmt.Errorf("%w: it has mode %o and %d names", ErrReplaced, st.Mode, st.Nlink)
	}
	return nil
}

// CreateOwned replaces the file at path by an empty one that only the daemon's user can open, and opens it. flag is an
// access mode, with or without os.O_APPEND.
func CreateOwned(path string, flag int) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, flag|os.O_CREATE|os.O_EXCL, 0o600)
}

// shared is the mode of a file that a machine's user opens by its name.
const shared = 0o660

// Share gives a file that [CreateOwned] created to a machine's user. The daemon can still open it, through its group: it
// may lack CAP_DAC_OVERRIDE, as under the systemd unit. Share may be repeated.
func Share(f *os.File, user int) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Perm() != shared { // afterwards it would take CAP_FOWNER
		if err := f.Chmod(shared); err != nil {
			return err
		}
	}
	return f.Chown(user, os.Getegid())
}

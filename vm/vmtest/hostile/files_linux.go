package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// files are attempts to reach files.
func files() []attempt {
	return []attempt{
		{"read another machine's disk", func(t targets) error { return open(filepath.Join(t.Victim, "disk0.qcow2"), os.O_RDONLY) }},
		{"write another machine's disk", func(t targets) error { return open(filepath.Join(t.Victim, "disk0.qcow2"), os.O_WRONLY) }},
		{"read another machine's console", func(t targets) error { return open(filepath.Join(t.Victim, "serial.log"), os.O_RDONLY) }},
		{"open an image by its name", func(t targets) error { return open(t.Gold, os.O_RDONLY) }},
		{"write the image that was handed over", func(targets) error { return open(fmt.Sprintf("/proc/self/fd/%d", descriptors()[1]), os.O_RDWR) }},
		{"read a record", func(t targets) error { return open(t.Record, os.O_RDONLY) }},
		{"read a token", func(t targets) error { return open(t.Token, os.O_RDONLY) }},
		{"list the data folder", func(t targets) error { _, err := os.ReadDir(t.Data); return err }},
		{"create a file", func(t targets) error {
			return first(
				create(filepath.Join(t.Own, "new")), create("new"), create("/tmp/hostile"), create("/var/tmp/hostile"), create("/dev/shm/hostile"),
			)
		}},
		{"replace the overlay by a link", func(t targets) error {
			return first(
				os.Rename("disk0.qcow2", "disk0"), os.Symlink(t.Token, "link"), os.Link(t.Token, "link"),
				unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", overlay()), unix.AT_FDCWD, "link", unix.AT_SYMLINK_FOLLOW),
			)
		}},
		{"change the machine's configuration", func(t targets) error {
			return first(open("machine.json", os.O_RDWR), open(filepath.Join(t.Own, "machine.json"), os.O_RDWR), open("user", os.O_RDWR), open("link.json", os.O_RDWR))
		}},
		{"change its number in the pid file", func(targets) error {
			return first(open("pid", os.O_WRONLY), open("/proc/self/fd/6", os.O_RDWR), writeTo(6))
		}},
		{"open a device of the host", func(targets) error {
			return first(open("/dev/mem", os.O_RDONLY), open("/dev/kmsg", os.O_RDONLY), open("/dev/net/tun", os.O_RDWR), open("/dev/vda", os.O_RDONLY), open("/dev/fuse", os.O_RDWR))
		}},
		{"find a file that was not handed over", func(targets) error {
			pipes := 0 // the one by whose end the console's trimmer knows that of QEMU
			for fd := 8; fd < 1024; fd++ {
				if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || slices.Contains(descriptors(), fd) || isOfGo(fd) {
					continue
				}
				if pipes++; pipes > 1 || !isPipeToWrite(fd) {
					return nil
				}
			}
			return errors.New("there is none")
		}},
		{"find the daemon's environment", func(targets) error {
			for _, e := range os.Environ() {
				if name, _, _ := cut(e); !slices.Contains([]string{"MALLOC_ARENA_MAX", "TZ", "PWD", "OLDPWD", "SHLVL", "_"}, name) {
					return nil
				}
			}
			return errors.New("there is nothing of it")
		}},
		{"give the overlay a data file", func(t targets) error {
			f := os.NewFile(uintptr(overlay()), "overlay")
			_, err := f.WriteAt([]byte{0, 0, 0, 0, 0, 0, 0, 4}, 72) // the incompatible feature; the test starts the machine again
			if err == nil {
				err = errors.New("the next start decides")
			}
			return err
		}},
	}
}

func cut(e string) (name, value string, ok bool) {
	for i := range e {
		if e[i] == '=' {
			return e[:i], e[i+1:], true
		}
	}
	return e, "", false
}

// isOfGo reports whether Go's own runtime opened the descriptor.
func isOfGo(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC != 0
}

func open(path string, flag int) error {
	f, err := os.OpenFile(path, flag, 0)
	if err == nil {
		f.Close()
	}
	return err
}

func create(path string) error {
	f, err := os.Create(path)
	if err == nil {
		f.Close()
		os.Remove(path)
	}
	return err
}

func writeTo(fd int) error {
	_, err := unix.Pwrite(fd, []byte("1\n"), 0)
	return err
}

// first returns nil if one of the attempts succeeded, and otherwise all errors.
func first(errs ...error) error {
	if slices.Contains(errs, nil) {
		return nil
	}
	return errors.Join(errs...)
}

// isPipeToWrite reports whether the descriptor is the writing end of a pipe.
func isPipeToWrite(fd int) bool {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	flags, failed := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && failed == nil && strings.HasPrefix(name, "pipe:") && flags&unix.O_ACCMODE == unix.O_WRONLY
}

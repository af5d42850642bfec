package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// memory are attempts to change what machines that start from memory share. Other machines have no such files.
func memory() []attempt {
	return []attempt{
		{"change the memory that was handed over", func(targets) error {
			for _, a := range os.Args {
				var fd int
				if _, path, ok := strings.Cut(a, "mem-path=/proc/self/fd/"); ok {
					if n, _ := fmt.Sscanf(path, "%d", &fd); n == 1 {
						return changeMemory(fd)
					}
				}
			}
			return errNone
		}},
		{"change the template's disk", func(targets) error {
			err := errNone
			for _, fd := range descriptors() {
				path := fmt.Sprintf("/proc/self/fd/%d", fd)
				if name, _ := os.Readlink(path); !strings.Contains(name, "frozen") && !strings.Contains(name, "templates") {
					continue
				}
				_, writing := unix.Pwrite(fd, []byte("x"), 0)
				if err = first(writing, open(path, os.O_RDWR), unix.Fchmod(fd, 0o666), unix.Ftruncate(fd, 0)); err == nil {
					return nil
				}
			}
			return err
		}},
	}
}

var errNone = errors.New("there is none")

// changeMemory tries every way to change a file in memory, and to lift its seals.
func changeMemory(fd int) error {
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	again, _ := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0) // -1 if it fails
	var errs []error
	for _, fd := range []int{fd, again} {
		_, writing := unix.Pwrite(fd, []byte("x"), 0)
		_, mapping := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		_, sealing := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, 0)
		errs = append(errs, writing, mapping, sealing,
			unix.Ftruncate(fd, 0), unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096))
		if shown, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED); err == nil {
			errs = append(errs, unix.Mprotect(shown, unix.PROT_READ|unix.PROT_WRITE))
		}
	}
	return first(errs...)
}

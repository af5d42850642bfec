package process

import (
	"errors"
	"fmt"
	"os"
)

// Files are the open files that the daemon hands to a QEMU, which then needs no access to any file's name. The zero
// Files are empty. Methods may not be called concurrently. Call Close once QEMU has started or cannot.
//
// There are two ways to name a file in QEMU's options: its descriptor, where an option takes one (sockets, taps), and
// the name of a set with one file, which every option takes that opens a file, such as -blockdev and -chardev file.
type Files struct {
	files []*os.File
	sets  []int // descriptors, by the number of their set
}

// Add hands f over and returns its descriptor in QEMU. Files closes f.
func (f *Files) Add(file *os.File) (descriptor int) {
	f.files = append(f.files, file)
	return firstFile + len(f.files) - 1
}

// AddSet hands f over as a set of its own and returns the name under which QEMU opens it. f must be open with the access
// mode that QEMU asks for: reading for what is read-only, writing for logs, both for disks. Files closes f.
func (f *Files) AddSet(file *os.File) (name string) {
	f.sets = append(f.sets, f.Add(file))
	return fmt.Sprintf("/dev/fdset/%d", len(f.sets)-1)
}

// Arguments returns the options that declare the sets. They come before the options that use them.
func (f *Files) Arguments() (args []string) {
	for set, descriptor := range f.sets {
		args = append(args, "-add-fd", fmt.Sprintf("fd=%d,set=%d", descriptor, set))
	}
	return args
}

// Len returns the number of files.
func (f *Files) Len() int { return len(f.files) }

// Close closes the daemon's copies of the files.
func (f *Files) Close() error {
	var errs []error
	for _, file := range f.files {
		errs = append(errs, file.Close())
	}
	f.files, f.sets = nil, nil
	return errors.Join(errs...)
}

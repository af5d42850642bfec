package disk

import (
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"osx-builder/vm"
	"osx-builder/vm/vmx"
)

// isUnreadable reports whether a conversion failed because of the disk's
// contents, so that a guest could not read it either, or could only with more memory than
// toolMemory. Otherwise space, time or qemu-img itself was missing.
func isUnreadable(err error) bool {
	var refused *vmx.CheckError
	if errors.As(err, &refused) {
		return true
	}
	if isTooLarge(err) {
		return true
	}
	var command *CommandError
	var exit *exec.ExitError
	if !errors.As(err, &command) || !errors.As(command.Err, &exit) || exit.ExitCode() != 1 {
		return false
	}
	for _, wanting := range []string{"No space left", "Disk quota", "Too many open files", "Permission denied"} {
		if strings.Contains(command.Stderr, wanting) {
			return false
		}
	}
	return strings.Contains(command.Stderr, "error while reading") || strings.Contains(command.Stderr, "Could not open 'json:")
}

// isTooLarge reports whether qemu-img was refused memory. The first two texts are
// those of the C library and of GLib, the last one is QEMU's.
func isTooLarge(err error) bool {
	var command *CommandError
	return errors.As(err, &command) && slices.ContainsFunc([]string{"Cannot allocate memory", "failed to allocate", "Could not allocate"},
		func(text string) bool { return strings.Contains(command.Stderr, text) })
}

// unreadableDisk returns the client's error for such a disk.
func unreadableDisk(d *Disk, err error) error {
	var refused *vmx.CheckError
	if errors.As(err, &refused) {
		return ImageError(err)
	}
	var command *CommandError
	errors.As(err, &command)
	if isTooLarge(err) {
		return &vm.Error{
			Code: vm.CodeImageInvalid, Err: err,
			Message: "disk " + d.Slot() + " (" + filepath.Base(d.Backing[0]) + ") needs more memory than " + humanize.IBytes(toolMemory) +
				" to be read: its tables are larger than its data needs; convert the disk to streamOptimized and pack it again",
		}
	}
	return &vm.Error{
		Code: vm.CodeImageInvalid, Err: err,
		Message: "disk " + d.Slot() + " (" + filepath.Base(d.Backing[0]) + ") cannot be read: " + firstLine(command.Stderr) +
			"; the file is damaged: check the machine on its host and pack it again",
	}
}

// firstLine returns the first line of what qemu-img wrote, without its name and
// without the description of the disk, which has paths of the host.
func firstLine(stderr string) string {
	line, _, _ := strings.Cut(stderr, "\n")
	line = strings.TrimPrefix(line, Tool+": ")
	if _, reason, ok := strings.Cut(line, "}': "); ok && strings.HasPrefix(line, "Could not open") {
		line = reason
	}
	return strings.ToValidUTF8(line[:min(len(line), 200)], "")
}

package disk

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"osx-builder/vm"
	"osx-builder/vm/vmx"
)

// Tool is the program that creates and converts disks.
const Tool = "qemu-img"

// CommandError is the failure of one of QEMU's programs.
type CommandError struct {
	What   string // what was tried
	Stderr string // what the program wrote
	Err    error
}

func (e *CommandError) Error() string { return fmt.Sprintf("%s: %v: %s", e.What, e.Err, e.Stderr) }

func (e *CommandError) Unwrap() error { return e.Err }

// FullError returns a *vm.Error of [vm.CodeDiskFull] if err means that the disk
// is full, and otherwise err.
func FullError(err error) error {
	var command *CommandError
	if errors.As(err, &command) && saysFull(command.Stderr) || vm.IsDiskFull(err) {
		return &vm.Error{Code: vm.CodeDiskFull, Message: "the disk that holds the machines is full; delete machines or images, or make room", Err: err}
	}
	return err
}

// saysFull reports whether a program's message says that the disk is full. The C
// library begins its texts for errors with a capital letter, Go does not.
func saysFull(stderr string) bool {
	stderr = strings.ToLower(stderr)
	return strings.Contains(stderr, syscall.ENOSPC.Error()) || strings.Contains(stderr, syscall.EDQUOT.Error())
}

// ImageError returns the client's error for an image that vmx cannot read or
// refuses.
func ImageError(err error) error {
	var check *vmx.CheckError
	if !errors.As(err, &check) {
		return fmt.Errorf("reading the image: %w", err)
	}
	code := vm.CodeImageInvalid
	if check.Unsafe() {
		code = vm.CodeImageUnsafe
	}
	return &vm.Error{Code: code, Message: check.Error(), Err: err}
}

// InvalidImage returns the client's error for an image that QEMU cannot run.
func InvalidImage(format string, args ...any) error {
	return &vm.Error{Code: vm.CodeImageInvalid, Message: fmt.Sprintf(format, args...)}
}

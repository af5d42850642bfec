package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/qemu/process"
	"osx-builder/vm/vmx"
)

const (
	// Tool is the program that creates and converts disks.
	Tool = "qemu-img"

	// convertMemory bounds the address space of a qemu-img that reads an
	// image's disk, in KiB. qemu-img maps about 120 MiB, and 8 MiB for the stack
	// of each of up to 64 threads. It starts more threads the slower the host's
	// disk is, and aborts if it cannot start one, so all of them must fit.
	convertMemory = 1 << 20

	// oneArena makes the C library of qemu-img allocate from one arena.
	// Otherwise each thread may reserve 64 MiB for an arena of its own, so that
	// a dozen threads exceed convertMemory.
	oneArena = "MALLOC_ARENA_MAX=1"
)

// limited runs qemu-img on a file from an untrusted image, with bounds on its
// processor time, its memory and the bytes that it writes. A shell sets the
// bounds that the system has (macOS has none on memory) and becomes qemu-img.
// limited returns the program's output and standard error.
func limited(ctx context.Context, seconds, bytes int64, args ...string) (string, error) {
	script := fmt.Sprintf(`ulimit -v %d 2>/dev/null; ulimit -t %d; ulimit -f %d; ulimit -c 0; exec %s "$@"`, convertMemory, seconds, bytes/512, Tool)
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", script, "sh"}, args...)...)
	cmd.Env = append(os.Environ(), oneArena)
	cmd.WaitDelay = time.Second
	var out []byte
	err := process.WithoutAmbient(func() (err error) { out, err = cmd.CombinedOutput(); return err })
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return strings.TrimSpace(string(out)), err
}

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

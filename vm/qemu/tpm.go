package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"osx-builder/vm"
	"osx-builder/vm/qemu/confine"
	"osx-builder/vm/qemu/process"
)

const (
	// tpmProgram emulates TPMs. It has a file for a TPM's state, instead of a folder, as of version 0.7.
	tpmProgram = "swtpm"

	// tpmFile has the state of the machine's TPM.
	tpmFile = "tpm"

	// The bounds of a swtpm. Its state takes less than 200 KiB.
	tpmFileSize = 1 << 20
	tpmMemory   = 1 << 30 // of address space
	tpmFiles    = 64

	howToGetTPM = "install it with `apt-get install swtpm` (Debian 12, Ubuntu 24.04 and later), `dnf install swtpm` (Fedora) or `brew install swtpm` (macOS)"
)

// findTPM returns the path of a swtpm on this host that has what the driver uses.
func findTPM(ctx context.Context) (string, error) {
	path, err := exec.LookPath(tpmProgram)
	if err != nil {
		return "", fmt.Errorf("%s is not installed; %s", tpmProgram, howToGetTPM)
	}
	can, err := output(ctx, path, "socket", "--print-capabilities")
	if err != nil {
		return "", fmt.Errorf("%s does not work: %w", path, err)
	}
	for _, capability := range []string{"tpm-2.0", "nvram-backend-file"} {
		if !strings.Contains(can, `"`+capability+`"`) {
			return "", fmt.Errorf("%s has no %s; version 0.7 or later has it; %s", path, capability, howToGetTPM)
		}
	}
	return path, nil
}

// mapTPM decides whether a machine whose image has a TPM gets one. VMware encrypts the state of its TPMs for those who
// know the image's password, so the machine's is always a new one.
func mapTPM(ctx context.Context, clone *cloneConfig) error {
	if !clone.TPM {
		return nil
	}
	const recovery = "a guest whose disk is encrypted with the TPM asks for its recovery key"
	_, err := findTPM(ctx)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		clone.TPM = false
		clone.Warnings.Add(vm.WarningTPMLeftOut, "the image has a virtual TPM, and the machine has none: %v; %s", err, recovery)
	default:
		clone.Warnings.Add(vm.WarningTPMReplaced, "the machine's virtual TPM is a new one, since VMware encrypts that of the image; %s", recovery)
	}
	return nil
}

// socketPair returns two connected sockets that programs which are started meanwhile do not inherit. macOS has no flag
// for that.
func socketPair() (ends [2]int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if ends, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); err != nil {
		return ends, os.NewSyscallError("socketpair", err)
	}
	unix.CloseOnExec(ends[0])
	unix.CloseOnExec(ends[1])
	return ends, nil
}

// openTPM opens the TPM's state, and makes the socket by which QEMU reaches swtpm. It sets s.tpm and adds swtpm to
// s.beside.
func (s *setup) openTPM(ctx context.Context, files *process.Files) error {
	if !s.TPM {
		return nil
	}
	path, err := findTPM(ctx)
	if err != nil {
		return &vm.Error{Code: vm.CodeHypervisorUnavailable, Message: fmt.Sprintf("the machine has a virtual TPM, and its program is missing: %v", err), Err: err}
	}
	ends, err := socketPair()
	if err != nil {
		return err
	}
	s.tpm = files.Add(os.NewFile(uintptr(ends[0]), "swtpm"))
	own := &process.Files{}
	socket := own.Add(os.NewFile(uintptr(ends[1]), "qemu"))
	state, err := openTPMState(s.Dir, s.user)
	if err != nil {
		return errors.Join(err, own.Close())
	}
	stateFile := own.Add(state)
	s.beside[process.TPM] = process.Command{
		Dir: s.Dir,
		Argv: []string{
			path, "socket", "--tpm2", "--terminate",
			"--tpmstate", fmt.Sprintf("backend-uri=file:///dev/fd/%d", stateFile),
			"--ctrl", fmt.Sprintf("type=unixio,clientfd=%d", socket),
		},
		Files: own,
		Rules: confine.Rules{
			User:    s.user,
			Execute: programFiles(path),
			Write:   []string{filepath.Join(s.Dir, tpmFile)},
			Limits: confine.Limits{
				Memory: tpmMemory, FileSize: tpmFileSize, Files: tpmFiles, Processes: s.CPUs + extraThreads,
			},
		},
	}
	return nil
}

// openTPMState opens the TPM's state, which is empty before the machine's first start. swtpm opens it once more, by its
// descriptor's name, so the file is the user's.
func openTPMState(dir string, user int) (*os.File, error) {
	f, err := openState(dir, tpmFile, os.O_RDWR)
	if missing(err) {
		f, err = process.CreateOwned(filepath.Join(dir, tpmFile), os.O_RDWR)
	}
	if err != nil || user == 0 {
		return f, err
	}
	if err := process.Share(f, user); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// tpmOptions connects the TPM to the board.
func tpmOptions(s setup) []string {
	if !s.TPM {
		return nil
	}
	device := "tpm-crb"
	if s.Board == boardVirt {
		device = "tpm-tis-device"
	}
	return []string{
		"-chardev", fmt.Sprintf("socket,id=tpm,fd=%d", s.tpm),
		"-tpmdev", "emulator,id=tpm0,chardev=tpm",
		"-device", device + ",tpmdev=tpm0",
	}
}

// tpmWords returns what the machine's last swtpm wrote to its standard error, in one line that begins with "; ", or "".
func tpmWords(dir string) string {
	f, err := process.OpenOwned(filepath.Join(dir, process.TPM.LogFile()), os.O_RDONLY)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 1<<10))
	if err != nil || len(text) == 0 {
		return ""
	}
	return "; the words of " + tpmProgram + ": " + strings.Join(strings.FieldsFunc(strings.ToValidUTF8(string(text), ""), func(r rune) bool { return r < ' ' || r == 0x7f }), "; ")
}

// tpmFault returns what a machine whose guest has lost its TPM has met, or nil.
func tpmFault(dir string, pid int, clone cloneConfig) *vm.Error {
	if !clone.TPM || !process.CanLock || process.TPM.Runs(dir) || !process.Holds(dir, pid) {
		return nil // swtpm outlives QEMU, so a QEMU that still runs has lost it
	}
	return &vm.Error{
		Code:    vm.CodeHypervisor,
		Message: "the machine's virtual TPM has ended; switch the machine off and on again" + tpmWords(dir),
	}
}

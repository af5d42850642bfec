package qemu

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
)

const (
	defaultBinary = "qemu-system-x86_64"
	armBinary     = "qemu-system-aarch64"

	// minMajor is the first version of QEMU that has everything the driver uses.
	minMajor = 6

	// probeTimeout bounds a call of QEMU that takes about 20 ms.
	probeTimeout = 10 * time.Second
)

// binary is a QEMU on this host.
type binary struct {
	path    string
	version string // as QEMU writes it: "7.2.22 (Debian 1:7.2+dfsg-7)"
	major   int
	minor   int
	sandbox bool // it was built with seccomp
}

// atLeast reports whether QEMU has this version or a later one.
func (b binary) atLeast(major, minor int) bool {
	return b.major > major || b.major == major && b.minor >= minor
}

// runsStaleCode reports whether a processor that QEMU emulates may go on with code
// that another one has replaced while it was translated: until 8.1, QEMU watched a
// page only once that was done (tb_lock_page0 in its accel/tcg). Linux replaces its
// own code while it boots, and of guests with several processors about one in two
// hundred hung, in breakpoints that were not there any more.
func (b binary) runsStaleCode() bool { return !b.atLeast(8, 1) }

// programs are the QEMUs for each processor of guests.
type programs struct{ x86, arm *binaries }

// newPrograms returns the QEMUs of which name is that for x86. That for ARM is in the same folder.
func newPrograms(name string) programs {
	arm := armBinary
	if dir := filepath.Dir(name); dir != "." {
		arm = filepath.Join(dir, arm)
	}
	return programs{&binaries{name: name}, &binaries{name: arm}}
}

// forBoard returns the QEMU that has the board.
func (p programs) forBoard(board string) *binaries {
	if board == boardVirt {
		return p.arm
	}
	return p.x86
}

// binaries finds QEMU. It probes each file once, until the file changes.
type binaries struct {
	name string

	mu    sync.Mutex
	known binary      // guarded by mu
	file  os.FileInfo // of known; guarded by mu
}

// find returns the QEMU that is installed now. The error is a *vm.Error.
func (b *binaries) find(ctx context.Context) (binary, error) {
	path, err := exec.LookPath(b.name)
	if err != nil {
		return binary{}, notInstalled(b.name, err)
	}
	if _, err := exec.LookPath(disk.Tool); err != nil {
		return binary{}, notInstalled(disk.Tool, err)
	}
	file, err := os.Stat(path)
	if err != nil {
		return binary{}, notInstalled(b.name, err)
	}
	if known, ok := b.recall(path, file); ok {
		return known, nil
	}
	found, err := probeBinary(ctx, path)
	if err != nil {
		return binary{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known, b.file = found, file
	return found, nil
}

func (b *binaries) recall(path string, file os.FileInfo) (binary, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	same := b.file != nil && os.SameFile(b.file, file) && b.file.ModTime().Equal(file.ModTime()) && b.known.path == path
	return b.known, same
}

// probeBinary runs a QEMU to find its version. QEMU reads its options in order, so
// one built without seccomp fails at -sandbox before it reads -version.
func probeBinary(ctx context.Context, path string) (binary, error) {
	found := binary{path: path, sandbox: true}
	out, err := output(ctx, path, "-sandbox", "on", "-version")
	if err != nil {
		found.sandbox = false
		out, err = output(ctx, path, "-version")
	}
	if err != nil {
		return binary{}, &vm.Error{
			Code:    vm.CodeHypervisorUnavailable,
			Message: fmt.Sprintf("%s -version does not work; %s", path, install()),
			Err:     err,
		}
	}
	found.version, found.major, found.minor = parseVersion(out)
	if found.major < minMajor {
		return binary{}, &vm.Error{
			Code:    vm.CodeHypervisorUnavailable,
			Message: fmt.Sprintf("%s is QEMU %q; version %d or later is needed; %s", path, found.version, minMajor, install()),
		}
	}
	return found, nil
}

// output runs a QEMU program and returns what it prints.
func output(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", fmt.Errorf("running %s: %w: %s", path, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// parseVersion reads the first line of -version, for instance
// "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)".
func parseVersion(out string) (version string, major, minor int) {
	m := regexp.MustCompile(`(?m)version ((\d+)\.(\d+).*)$`).FindStringSubmatch(out)
	if m == nil {
		return "", 0, 0
	}
	major, _ = strconv.Atoi(m[2])
	minor, _ = strconv.Atoi(m[3])
	return m[1], major, minor
}

func notInstalled(name string, err error) error {
	return &vm.Error{
		Code:    vm.CodeHypervisorUnavailable,
		Message: fmt.Sprintf("QEMU's %s is not installed: %s", name, installProgram(name)),
		Err:     err,
	}
}

// installProgram says how to get one of QEMU's programs on this host.
func installProgram(name string) string {
	if filepath.Base(name) == armBinary && runtime.GOOS != "darwin" {
		return "ARM images need `apt-get install qemu-system-arm qemu-efi-aarch64` (Debian, Ubuntu) or `dnf install qemu-system-aarch64 edk2-aarch64` (Fedora)"
	}
	return install()
}

// install says how to get QEMU on this host.
func install() string {
	if runtime.GOOS == "darwin" {
		return "install it with `brew install qemu`"
	}
	return "install it with `apt-get install qemu-system-x86 qemu-utils` (Debian, Ubuntu) or `dnf install qemu-system-x86 qemu-img` (Fedora)"
}

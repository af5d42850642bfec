package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"osx-builder/vm"
)

// firmware is EFI firmware for guests: its code, which all machines share, and
// the initial variables, of which each machine has its own copy.
type firmware struct{ code, vars string }

// firmwares lists where packages install EFI firmware, the 4 MiB files first:
// Debian and Ubuntu, Fedora, Arch, openSUSE, and QEMU itself, whose files Homebrew
// keeps beside the binary. None has Secure Boot, which is off by default on
// VMware.
func firmwares(binary string) []firmware {
	share := filepath.Join(filepath.Dir(binary), "..", "share", "qemu")
	return []firmware{
		{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
		{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
		{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
		{"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
		{"/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"},
		{filepath.Join(share, "edk2-x86_64-code.fd"), filepath.Join(share, "edk2-i386-vars.fd")},
	}
}

// findFirmware returns the first firmware of which both files exist.
func findFirmware(binary string) (firmware, error) {
	for _, f := range firmwares(binary) {
		if regular(f.code) && regular(f.vars) {
			return f, nil
		}
	}
	how := "install it with `apt-get install ovmf` (Debian, Ubuntu) or `dnf install edk2-ovmf` (Fedora)"
	if runtime.GOOS == "darwin" {
		how = "it is part of `brew install qemu`"
	}
	return firmware{}, &vm.Error{
		Code:    vm.CodeHypervisorUnavailable,
		Message: "the image boots with EFI firmware, and none is installed for QEMU: " + how,
	}
}

func regular(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// copyFile copies a file of a few megabytes. It replaces an existing copy.
func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, writing := f.Write(data)
	if err := errors.Join(writing, f.Close()); err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	return nil
}

package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"osx-builder/vm"
)

// firmware is an EFI for guests: its code, which all share, and the first
// content of the variables, of which each machine has its own copy.
type firmware struct{ code, vars string }

// firmwares lists where packages put their EFI, those with room for 4 MiB
// first: Debian and Ubuntu, Fedora, Arch, openSUSE, and QEMU's own, which
// Homebrew keeps beside the binary. Secure Boot is in none of these, as it is
// off in a VMware machine that does not ask for it.
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

// findFirmware returns the first EFI that is wholly there.
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

// copyFile makes a copy of a file of a few megabytes, or none where one is.
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

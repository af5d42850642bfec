package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"osx-builder/vm"
	"osx-builder/vm/qemu/efivars"
)

// firmware is EFI firmware for guests: its code, which all machines share, and
// the initial variables, of which each machine has its own copy.
type firmware struct{ code, vars string }

// firmwares lists where packages install EFI firmware, the 4 MiB files first:
// Debian and Ubuntu, Fedora, Arch, openSUSE, and QEMU itself, whose files Homebrew
// keeps beside the binary. None has Secure Boot, which is off by default on
// VMware.
func firmwares(binary, board string) []firmware {
	share := filepath.Join(filepath.Dir(binary), "..", "share", "qemu")
	if board == boardVirt {
		return []firmware{
			{"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"},
			{"/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw"},
			{"/usr/share/edk2/aarch64/QEMU_CODE.fd", "/usr/share/edk2/aarch64/QEMU_VARS.fd"},
			{"/usr/share/qemu/aavmf-aarch64-code.bin", "/usr/share/qemu/aavmf-aarch64-vars.bin"},
			{filepath.Join(share, "edk2-aarch64-code.fd"), filepath.Join(share, "edk2-arm-vars.fd")},
		}
	}
	return []firmware{
		{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
		{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
		{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
		{"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
		{"/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"},
		{filepath.Join(share, "edk2-x86_64-code.fd"), filepath.Join(share, "edk2-i386-vars.fd")},
	}
}

// secureFirmwares lists firmware with Secure Boot whose variables have the keys of Microsoft, which sign the boot loaders
// of Windows and of common distributions.
func secureFirmwares() []firmware {
	return []firmware{
		{"/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"},
		{"/usr/share/OVMF/OVMF_CODE.ms.fd", "/usr/share/OVMF/OVMF_VARS.ms.fd"},
		{"/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", "/usr/share/edk2/ovmf/OVMF_VARS.secboot.fd"},
		{"/usr/share/qemu/ovmf-x86_64-smm-ms-code.bin", "/usr/share/qemu/ovmf-x86_64-smm-ms-vars.bin"},
	}
}

// installed returns the first firmware of which both files exist.
func installed(all []firmware) (firmware, bool) {
	for _, f := range all {
		if regular(f.code) && regular(f.vars) {
			return f, true
		}
	}
	return firmware{}, false
}

// findFirmware returns the firmware for a machine with EFI.
func findFirmware(binary string, h hardware) (firmware, error) {
	all := firmwares(binary, h.Board)
	if h.SecureBoot {
		all = secureFirmwares()
	}
	if f, ok := installed(all); ok {
		return f, nil
	}
	how := "install it with `apt-get install ovmf` (Debian, Ubuntu) or `dnf install edk2-ovmf` (Fedora)"
	switch {
	case runtime.GOOS == "darwin":
		how = "it is part of `brew install qemu`"
	case h.Board == boardVirt:
		how = "install it with `apt-get install qemu-efi-aarch64` (Debian, Ubuntu) or `dnf install edk2-aarch64` (Fedora)"
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

// createVariables copies the firmware's variables to a file for a machine, and adds the places where the guest's boot
// loader may be. If the variables have an unknown format, they stay as they are: the firmware then finds the loaders of
// removable media only.
func createVariables(f firmware, h hardware, to string) error {
	data, err := os.ReadFile(f.vars)
	if err != nil {
		return err
	}
	suffix := "x64"
	if h.Board == boardVirt {
		suffix = "aa64"
	}
	changed := bytes.Clone(data)
	if efivars.Add(changed, efivars.Loaders(h.GuestOS, suffix)) == nil {
		data = changed
	}
	return writeSparse(to, data)
}

// writeSparse writes a file and leaves holes for zeroes, of which ARM's variables have 64 MiB.
func writeSparse(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	const block = 64 << 10
	var zeroes [block]byte
	err = f.Truncate(int64(len(data)))
	for at := 0; at < len(data) && err == nil; at += block {
		if part := data[at:min(at+block, len(data))]; !bytes.Equal(part, zeroes[:len(part)]) {
			_, err = f.WriteAt(part, int64(at))
		}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

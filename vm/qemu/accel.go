package qemu

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
)

// acceleration is how QEMU runs the guest's code, and the reason.
type acceleration struct{ name, why string }

// String returns the name and the reason. It says if guests are slow.
func (a acceleration) String() string {
	if a.name == "tcg" {
		return "tcg: emulated, which is slow: " + a.why
	}
	return a.name + ": " + a.why
}

// The processors of guests, by Go's names.
const (
	archX86 = "amd64"
	archARM = "arm64"
)

// guestArch returns the processor of guests on a board.
func guestArch(board string) string {
	if board == boardVirt {
		return archARM
	}
	return archX86
}

// probeAcceleration finds what this host has now. It chooses hardware acceleration
// only if the processor shows that it has it: on hosts without, there may be a
// /dev/kvm that opens but hangs every guest.
func probeAcceleration(arch string) acceleration {
	if runtime.GOARCH != arch {
		return acceleration{"tcg", "a guest for " + arch + " on a processor of another kind is emulated"}
	}
	switch runtime.GOOS {
	case "linux":
		if arch == archARM {
			return openKVM("/dev/kvm", "the processor is the guest's")
		}
		return probeKVM("/dev/kvm", "/proc/cpuinfo")
	case "darwin":
		return probeHVF()
	}
	return acceleration{"tcg", "no hardware acceleration is known for " + runtime.GOOS}
}

func probeKVM(device, cpuinfo string) acceleration {
	f, err := os.Open(cpuinfo)
	if err != nil {
		return acceleration{"tcg", err.Error()}
	}
	defer f.Close()
	flag := virtualization(f)
	if flag == "" {
		return acceleration{"tcg", cpuinfo + " shows neither vmx nor svm"}
	}
	return openKVM(device, "the processor has "+flag)
}

func openKVM(device, processor string) acceleration {
	kvm, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return acceleration{"tcg", err.Error()}
	}
	kvm.Close()
	return acceleration{"kvm", fmt.Sprintf("%s opens and %s", device, processor)}
}

// virtualization returns the flag in cpuinfo of a processor that can run guests,
// vmx or svm, or "".
func virtualization(cpuinfo io.Reader) string {
	lines := bufio.NewScanner(cpuinfo)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(name) != "flags" {
			continue
		}
		flags := strings.Fields(value)
		for _, flag := range []string{"vmx", "svm"} {
			if slices.Contains(flags, flag) {
				return flag
			}
		}
		return ""
	}
	return ""
}

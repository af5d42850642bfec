package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProbeKVM(t *testing.T) {
	dir := t.TempDir()
	device := filepath.Join(dir, "kvm")
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ cpuinfo, device, want, why string }{
		"intel":                      {"processor\t: 0\nflags\t\t: fpu vmx sse\n", device, "kvm", "vmx"},
		"amd":                        {"flags\t\t: fpu svm\n", device, "kvm", "svm"},
		"device but no flag":         {"flags\t\t: fpu hypervisor\n", device, "tcg", "neither vmx nor svm"},
		"flag in another word":       {"flags\t\t: vmx_something\nvmx flags\t: vnmi\n", device, "tcg", "neither"},
		"flag but no device":         {"flags\t\t: vmx\n", device + "0", "tcg", "kvm0"},
		"processor that has no flag": {"Features\t: fp asimd\n", device, "tcg", "neither"},
	} {
		t.Run(name, func(t *testing.T) {
			cpuinfo := filepath.Join(t.TempDir(), "cpuinfo")
			if err := os.WriteFile(cpuinfo, []byte(test.cpuinfo), 0o600); err != nil {
				t.Fatal(err)
			}
			got := probeKVM(test.device, cpuinfo)
			if got.name != test.want || !strings.Contains(got.why, test.why) {
				t.Errorf("got %+v, want %s because of %q", got, test.want, test.why)
			}
		})
	}
}

// QEMU emulates several processors in threads of their own as of 8.1.
func TestRunsStaleCode(t *testing.T) {
	for b, want := range map[binary]bool{
		{major: 7, minor: 2}: true, {major: 8, minor: 0}: true, {major: 8, minor: 1}: false, {major: 10, minor: 0}: false,
	} {
		if got := b.runsStaleCode(); got != want {
			t.Errorf("QEMU %d.%d: got %t, want %t", b.major, b.minor, got, want)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]struct {
		version      string
		major, minor int
	}{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022\n": {"7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", 7, 2},
		"QEMU emulator version 10.1.0\nCopyright\n":                                                 {"10.1.0", 10, 1},
		"nothing of the kind\n": {"", 0, 0},
	} {
		version, major, minor := parseVersion(text)
		if version != want.version || major != want.major || minor != want.minor {
			t.Errorf("got %q, %d and %d of %q, want %+v", version, major, minor, text, want)
		}
	}
}

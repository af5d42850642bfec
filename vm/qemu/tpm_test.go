package qemu

import (
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// Without a swtpm that fits, the machine has no TPM, and the warning says how to get one.
func TestTPMWithoutItsProgram(t *testing.T) {
	for name, test := range map[string]struct{ script, words string }{
		"not installed": {"", "swtpm is not installed; install it with `apt-get install swtpm`"},
		"too old":       {`echo '{ "features": [ "tpm-1.2", "tpm-2.0", "nvram-backend-dir" ], "version": "0.6.3" }'`, "version 0.7 or later"},
		"broken":        {"echo no libtpms >&2; exit 1", "no libtpms"},
	} {
		dir := t.TempDir()
		if test.script != "" {
			vmtest.WriteProgram(t, filepath.Join(dir, "swtpm"), "#!/bin/sh\n"+test.script+"\n")
		}
		t.Setenv("PATH", dir)
		clone := cloneConfig{hardware: hardware{TPM: true}}
		if err := mapTPM(t.Context(), &clone); err != nil {
			t.Fatal(err)
		}
		if len(clone.Warnings) != 1 || clone.TPM || clone.Warnings[0].Code != vm.WarningTPMLeftOut || !strings.Contains(clone.Warnings[0].Message, test.words) {
			t.Errorf("%s: got %+v, TPM %t, want no TPM and %s with %q", name, clone.Warnings, clone.TPM, vm.WarningTPMLeftOut, test.words)
		}
	}
}

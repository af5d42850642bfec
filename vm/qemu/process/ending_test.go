package process

import (
	"os"
	"path/filepath"
	"testing"
)

func TestEndingOf(t *testing.T) {
	for name, test := range map[string]struct {
		status, words string
		off           bool
		want          string
		died, says    bool
	}{
		"the guest":              {"0", "", false, "the guest shut down", false, false},
		"the guest, warned":      {"0", "warning: no 3DNow!", false, "the guest shut down", false, false},
		"a client":               {"0", "", true, "it was switched off", false, false},
		"a client, by force":     {"137", "", true, "it was switched off", false, false},
		"a crash once asked":     {"139", "", true, "QEMU was killed by signal 11 (segmentation fault)", true, false},
		"SIGKILL":                {"137", "", false, "QEMU was killed by signal 9 (killed)", true, false},
		"an assertion":           {"134", "qemu: a == b failed", false, "QEMU was killed by signal 6 (aborted)", true, false},
		"a signal that it obeys": {"0", "qemu: terminating on signal 15 from pid 1 (init)", false, "QEMU was ended by signal 15 (terminated)", true, false},
		"an error":               {"1", "qemu: no\nsuch device", false, "QEMU ended with status 1: qemu: no; such device", true, true},
		"a silent error":         {"3", "", false, "QEMU ended with status 3", true, false},
		"everything killed":      {"", "", false, "QEMU was killed together with what watched it, or the host restarted", true, false},
	} {
		got := endingOf(test.status, test.words, test.off)
		if got.Reason != test.want || got.Died != test.died || got.Explained != test.says {
			t.Errorf("%s: got %+v, want %q, died %t, explained %t", name, got, test.want, test.died, test.says)
		}
	}
}

// The exit status is there once nobody has it locked any more; a shell that is
// late writes to no later QEMU's.
func TestExitFile(t *testing.T) {
	dir := t.TempDir()
	if text, supervised := readExit(dir); text != "" || supervised {
		t.Errorf("got %q, %t without a file, want nothing", text, supervised)
	}
	first, err := newExitFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !IsSupervised(dir) || LastEnding(dir, false) != (Ending{}) {
		t.Errorf("got %+v while it is locked, want nothing", LastEnding(dir, false))
	}
	second, err := newExitFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.WriteString("139\n"); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if !IsSupervised(dir) {
		t.Error("the second file is not locked once the first is closed")
	}
	if _, err := second.WriteString("0\n"); err != nil {
		t.Fatal(err)
	}
	second.Close()
	if got := LastEnding(dir, false).Reason; got != "the guest shut down" {
		t.Errorf("got %q, want what was written last", got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("got %v, want one file", left)
	}
}

// A full disk does not keep the status from being written: it takes the place of
// what is there.
func TestStatusFitsIntoItsFile(t *testing.T) {
	dir := t.TempDir()
	f, err := newExitFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("255\n"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, ExitFile)); err != nil || info.Size() != int64(len(blankStatus)) {
		t.Errorf("got a file of %d bytes (%v), want still %d", info.Size(), err, len(blankStatus))
	}
}

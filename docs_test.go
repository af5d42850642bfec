package main_test

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"osx-builder/vm/vmtest/harness"

	"osx-builder/vm"
)

// sameFields compares the fields of two indented documents.
func sameFields(t *testing.T, what, got, want string) {
	t.Helper()
	name := regexp.MustCompile(`(?m)^ *"[a-z_]+":`)
	if g, w := name.FindAllString(got, -1), name.FindAllString(want, -1); !slices.Equal(g, w) {
		t.Errorf("%s has %q, README says %q", what, g, w)
	}
}

// The diagram of a machine's life has every phase, and no other.
func TestReadmeDiagram(t *testing.T) {
	diagram := regexp.MustCompile("(?s)```mermaid\n(.*?)```").FindString(harness.ReadFile(t, "README.md"))
	told := make(map[vm.Phase]bool)
	for _, m := range regexp.MustCompile(`(?m)^\s+(\S+) --> ([^:\s]+)`).FindAllStringSubmatch(diagram, -1) {
		for _, word := range m[1:] {
			told[vm.Phase(word)] = true
		}
	}
	delete(told, "[*]")
	delete(told, "making")
	for _, p := range vm.Phases() {
		if !told[p] {
			t.Errorf("the diagram does not show %s", p)
		}
		delete(told, p)
	}
	if len(told) > 0 {
		t.Errorf("the diagram shows %v, which are no phases", told)
	}
}

// A PREFIX or DESTDIR that begins with ~ would make a folder of that name: zsh
// and sh do not replace a ~ that follows a =.
func TestMakeRefusesTilde(t *testing.T) {
	for _, arg := range []string{"PREFIX=~/.local", "PREFIX=~", "DESTDIR=~/pkg"} {
		out, err := exec.Command("make", "-n", "install", arg).CombinedOutput()
		name, _, _ := strings.Cut(arg, "=")
		if err == nil || !strings.Contains(string(out), `as in `+name+`="$HOME/.local"`) {
			t.Errorf("make install %s: got %v, %s", arg, err, out)
		}
	}
	if out, err := exec.Command("make", "-n", "install", "PREFIX="+t.TempDir()).CombinedOutput(); err != nil {
		t.Errorf("make install: %v: %s", err, out)
	}
}

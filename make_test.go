package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

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

// The demo and the guest image do not need what only tests need, and make run does not install QEMU beside VMware.
func TestMakeInstallsOnlyWhatIsNeeded(t *testing.T) {
	for _, target := range []string{"demo", "image", "run"} {
		out, err := exec.Command("make", "-n", target).CombinedOutput()
		if err != nil {
			t.Errorf("make -n %s: %v: %s", target, err, out)
		}
		for _, name := range []string{"chromium", "npm"} {
			if strings.Contains(string(out), name) {
				t.Errorf("make %s installs %s", target, name)
			}
		}
	}
	for _, command := range []string{"vmrun", "other"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, command), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("make", "run-deps", "MAKE=echo deps")
		cmd.Env = append(os.Environ(), "PATH="+dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if needed := strings.Contains(string(out), "deps"); err != nil || needed == (command == "vmrun") {
			t.Errorf("with %s: got %v, %s", command, err, out)
		}
	}
}

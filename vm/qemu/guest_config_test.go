package qemu_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// A machine gets the NoCloud disk at a place that changes no device of its image, and its secrets are neither in the
// process list nor in its folder. It gets them at each start.
func TestGuestConfig(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	const planted = "pl4nted-s3cret"
	old := `guestOS = "winXPPro"` // without PCI Express
	for name, test := range map[string]struct {
		lines  []string
		device string
	}{
		"Q35":                       {plain, "ide-cd,bus=ide.5,drive=seed"},
		"the last place taken":      {slices.Concat(on("sata0:5"), on("sata0:4")), "ide-cd,bus=ide.3,drive=seed"},
		"all places taken":          {slices.Concat(on("sata0:0"), on("sata0:1"), on("sata0:2"), on("sata0:3"), on("sata0:4"), on("sata0:5")), "virtio-blk-pci,drive=seed"},
		"the old board":             {append(on("ide0:0"), old), "ide-cd,bus=ide.1,unit=1,drive=seed"},
		"the old board, all places": {slices.Concat(on("ide0:0"), on("ide0:1"), on("ide1:0"), on("ide1:1"), []string{old}), "virtio-blk-pci,drive=seed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newTestDriver(t)
			m := r.machine()
			m.Guest = &vm.GuestConfig{
				Hostname: "web", UserData: "#!/bin/sh\necho " + planted,
				SSHAuthorizedKeys: slices.Repeat([]string{"ssh-ed25519 AAAA " + strings.Repeat(planted, 20)}, 50), // 16 KiB
			}
			r.clone(m, r.image(idleGuest, test.lines...))
			for range 2 {
				r.start(m)
				until(t, harness.Timeout, "a word on the serial port", func() bool { return strings.Contains(serial(m), "OK\n") })
				out, err := exec.Command("ps", "-A", "-ww", "-e", "-o", "args=").Output()
				harness.Must(t, err)
				var own string
				for line := range strings.Lines(string(out)) {
					if strings.Contains(line, "guest=osxb-"+m.ID) {
						own = line
					}
				}
				for _, want := range []string{"-device " + test.device, "type=11,path=", "type=1,serial=ds=nocloud", "type=11,value=io.systemd.credential:system.hostname=web"} {
					if !strings.Contains(own, want) {
						t.Errorf("QEMU runs with %s, want %s", own, want)
					}
				}
				environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pidOf(t, m)))
				if err == nil && strings.Contains(string(environment), planted) || strings.Contains(string(out), planted) {
					t.Errorf("the process list shows the secret: %s %s", own, environment)
				}
				if files := harness.FilesWith(t, m.Dir, planted); len(files) > 0 {
					t.Errorf("the secret is in %q", files)
				}
				harness.Must(t, r.Power(t.Context(), m, vm.ActionOff))
				harness.Must(t, os.Remove(filepath.Join(m.Dir, "serial.log")))
			}
		})
	}
}

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the systemd unit takes from the daemon, machines do not need: with the
// unit's capabilities alone, no new privileges, and nothing to be written but
// the data folder, one is made and destroyed.
func TestMachinesRunUnderTheUnit(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to take its rights away")
	}
	s := newStage(t)
	must(t, s.Stop())
	unit, err := exec.Command(binary, "-print-unit", "systemd").Output()
	must(t, err)
	kept := "-all"
	for _, m := range regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.+)$`).FindAllSubmatch(unit, -1) {
		for name := range strings.FieldsSeq(string(m[1])) {
			kept += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
		}
	}
	for _, line := range []string{"NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=CAP_"} {
		if !strings.Contains(string(unit), "\n"+line) {
			t.Errorf("the unit has no %s, which this test is about", line)
		}
	}
	wrapper := filepath.Join(t.TempDir(), "wrapper")
	script := fmt.Sprintf(`#!/bin/sh
exec unshare --mount --propagation private sh -c 'mount --bind %[1]s %[1]s && mount -o remount,bind,ro / &&
  exec setpriv --no-new-privs --bounding-set=%[2]s --inh-caps=-all %[3]s "$@"' sh "$@"
`, s.Data, kept, binary)
	must(t, os.WriteFile(wrapper, []byte(script), 0o755))
	s.program = wrapper
	s.start()
	v := s.ready(s.create(s.image(tinyvm).Body(small(nil))).ID)
	if page := s.page(v); page["mac"] != v.MACAddress {
		t.Errorf("the guest answers %v, want MAC %s", page, v.MACAddress)
	}
	must(t, s.Stop())
	if n := s.machines(); n != 1 {
		t.Errorf("%d machines outlive the daemon, want 1", n)
	}
	s.start()
	s.destroy(v.ID)
}

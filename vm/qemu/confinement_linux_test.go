package qemu_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// QEMU runs under seccomp and can gain no privilege; started by root it is a
// user that has none, another for each machine.
func TestConfinement(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	users := map[string]bool{}
	for range 2 {
		m := r.running(idleGuest)
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pidOf(t, m)))
		if err != nil {
			t.Fatal(err)
		}
		status := map[string]string{}
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			status[name] = strings.TrimSpace(value)
		}
		if status["Seccomp"] != "2" || status["NoNewPrivs"] != "1" {
			t.Errorf("got Seccomp %s and NoNewPrivs %s, want 2 and 1", status["Seccomp"], status["NoNewPrivs"])
		}
		if status["CapEff"] != "0000000000000000" || status["CapPrm"] != "0000000000000000" {
			t.Errorf("got capabilities %s and %s, want none", status["CapEff"], status["CapPrm"])
		}
		uid, _, _ := strings.Cut(status["Uid"], "\t")
		if uid == "0" || strings.Count(status["Uid"], uid) != 4 {
			t.Errorf("got user %s, want one that is not root", status["Uid"])
		}
		users[uid] = true
	}
	if os.Geteuid() == 0 && len(users) != 2 {
		t.Errorf("got users %v for two machines, want one for each", users)
	}
}

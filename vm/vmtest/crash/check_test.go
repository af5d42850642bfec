package crash_test

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// checkState waits until every operation has ended and checks all machines.
func (c *crashTest) checkState(round int) {
	c.t.Helper()
	c.mu.Lock()
	unanswered := c.unansweredKeys
	c.unansweredKeys = make(map[string]string)
	c.mu.Unlock()
	for key, image := range unanswered {
		if status, v := c.post(image, key); status == http.StatusAccepted {
			c.accepted[v.ID] = image
		}
	}
	for id := range c.destroySent {
		if !c.destroyed[id] {
			c.destroy(id)
		}
	}
	for id := range c.destroyed {
		if !c.checkedGone[id] {
			c.checkGone(round, id)
			c.checkedGone[id] = true
		}
		delete(c.accepted, id)
	}
	live := c.liveMachines(round)
	for id, image := range c.accepted {
		v, ok := live[id]
		if !ok {
			c.t.Errorf("round %d: machine %s was accepted and is lost", round, id)
			continue
		}
		c.checkMachine(round, v, image)
	}
	c.checkHost(round, live)
	c.checkNetwork(round, live)
	c.checkGold(round)
}

// liveMachines returns the machines of GET /vms, each after its job has ended.
// It adds those whose creation was not answered to the accepted ones.
func (c *crashTest) liveMachines(round int) map[string]vm.VM {
	c.t.Helper()
	vms, err := c.daemon.List()
	harness.Must(c.t, err)
	live := make(map[string]vm.VM)
	for _, v := range vms {
		v, _, err := c.daemon.VM("GET", "/vms/"+v.ID+"?wait=2m", nil, http.StatusOK)
		harness.Must(c.t, err)
		live[v.ID] = v
		if _, known := c.accepted[v.ID]; !known {
			c.unknownMachines++
			c.accepted[v.ID] = strings.TrimPrefix(v.Image.URL[strings.LastIndex(v.Image.URL, "/"):], "/")
		}
	}
	if c.unknownMachines > c.creationsUnanswered {
		c.t.Errorf("round %d: there are %d machines that no answer named, but only %d creations had no answer",
			round, c.unknownMachines, c.creationsUnanswered)
	}
	return live
}

// checkMachine checks that a machine has the phase that its image allows, and
// that its callback was sent with the right document.
func (c *crashTest) checkMachine(round int, v vm.VM, image string) {
	c.t.Helper()
	want := vm.Ready
	if strings.HasPrefix(image, "bad-") {
		want = vm.Failed
	}
	mayFail := v.Error != nil && (v.Error.Code == vm.CodeAttempts || c.qemuKilled[v.ID])
	if v.Phase != want && !mayFail {
		c.t.Errorf("round %d: machine %s of %s is %s (%+v), want %s", round, v.ID, image, v.Phase, v.Error, want)
	}
	if want == vm.Ready && v.Phase == vm.Ready && v.Status != vm.PoweredOn && !c.qemuKilled[v.ID] {
		c.t.Errorf("round %d: machine %s is ready and %q", round, v.ID, v.Status)
	}
	c.checkCallback(round, v.ID, func(got string) bool { return got == outcome(v) })
}

// checkGone checks that a destroyed machine is not found and that its callback
// was sent nevertheless.
func (c *crashTest) checkGone(round int, id string) {
	c.t.Helper()
	a, err := c.daemon.Do("GET", "/vms/"+id, "", nil)
	if err != nil || a.Status != http.StatusNotFound {
		c.t.Errorf("round %d: machine %s was destroyed, and GET answers %d %s %v", round, id, a.Status, a.Body, err)
	}
	badImage := strings.HasPrefix(c.accepted[id], "bad-")
	allowed := []string{"destroying creation-cancelled", "failed too-many-attempts"}
	if !badImage {
		allowed = append(allowed, "ready")
	}
	mayFail := badImage || c.qemuKilled[id]
	c.checkCallback(round, id, func(got string) bool {
		return slices.Contains(allowed, got) || (mayFail && strings.HasPrefix(got, "failed "))
	})
}

// checkCallback waits for a machine's callback. If it was sent several times,
// each time must have the same outcome, and valid must accept it.
func (c *crashTest) checkCallback(round int, id string, valid func(outcome string) bool) {
	c.t.Helper()
	for deadline := time.Now().Add(harness.Timeout); ; time.Sleep(20 * time.Millisecond) {
		c.mu.Lock()
		got := slices.Compact(slices.Clone(c.outcomes[id]))
		c.mu.Unlock()
		switch {
		case len(got) > 1 || (len(got) == 1 && !valid(got[0])):
			c.t.Errorf("round %d: the callbacks of machine %s, of %s, had the outcomes %q", round, id, c.accepted[id], got)
			return
		case len(got) == 1:
			return
		case time.Now().After(deadline):
			c.t.Errorf("round %d: machine %s sent no callback", round, id)
			return
		}
	}
}

// checkHost compares the QEMU processes and the machines' files with the
// records.
func (c *crashTest) checkHost(round int, live map[string]vm.VM) {
	c.t.Helper()
	running := c.qemuProcesses()
	for id, pids := range running {
		if v, ok := live[id]; !ok || len(pids) != 1 || v.Phase != vm.Ready {
			c.t.Errorf("round %d: machine %s, %s, has processes %v", round, id, v.Phase, pids)
		}
	}
	entries, err := os.ReadDir(filepath.Join(c.data, "vms"))
	harness.Must(c.t, err)
	for _, e := range entries {
		if e.Name()[0] == '.' {
			continue // a record that is being written; destroyAll checks that none is left
		}
		id := strings.TrimSuffix(strings.TrimSuffix(e.Name(), ".json"), ".tombstone")
		v, ok := live[id]
		tombstone := c.destroyed[id] && id != e.Name() // its callback may still be due
		if (!ok && !tombstone) || (e.IsDir() && v.Phase != vm.Ready) {
			c.t.Errorf("round %d: %s is left of a machine that is %q", round, e.Name(), v.Phase)
		}
	}
	for id, v := range live {
		on := v.Phase == vm.Ready && v.Status == vm.PoweredOn
		if c.qemu && on && len(running[id]) != 1 {
			c.t.Errorf("round %d: machine %s is on and has processes %v", round, id, running[id])
		}
	}
}

// checkNetwork compares the host's taps and leases with the machines.
func (c *crashTest) checkNetwork(round int, live map[string]vm.VM) {
	c.t.Helper()
	macs := make(map[string]bool)
	on := 0
	for _, v := range live {
		macs[v.MACAddress] = true
		if v.Status == vm.PoweredOn {
			on++
		}
	}
	taps := 0
	for _, leftover := range e2e.Leftovers(c.data) {
		kind, rest, _ := strings.Cut(leftover, " ")
		switch {
		case kind == "device" && !strings.Contains(rest, "-"): // the name of a bridge has a hyphen
			taps++
		case kind == "lease" && !slices.ContainsFunc(strings.Fields(rest), func(f string) bool { return macs[f] }):
			c.t.Errorf("round %d: a lease is left: %s", round, rest)
		}
	}
	if c.qemu && (taps < on || taps > len(live)) {
		c.t.Errorf("round %d: there are %d taps, want at least one for each of the %d machines that are on, and at most %d",
			round, taps, on, len(live))
	}
}

// qemuProcesses returns the PIDs of the running QEMUs by machine.
func (c *crashTest) qemuProcesses() map[string][]int {
	found := make(map[string][]int)
	if !c.qemu {
		return found
	}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(b), c.data) && !e2e.HasOpen(filepath.Dir(file), c.data) {
			continue
		}
		_, name, ok := strings.Cut(string(b), "guest=osxb-")
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if !ok || err != nil || len(name) < 36 {
			continue
		}
		found[name[:36]] = append(found[name[:36]], pid)
	}
	return found
}

// checkGold checks that the gold images did not change since the last check.
func (c *crashTest) checkGold(round int) {
	c.t.Helper()
	gold := filepath.Join(c.data, "images", "gold")
	harness.Must(c.t, filepath.WalkDir(gold, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "image.json" {
			return err
		}
		sum, err := e2e.SHA256(path)
		if before := c.goldSums[path]; before != "" && before != sum {
			c.t.Errorf("round %d: the gold image's %s changed", round, path)
		}
		c.goldSums[path] = sum
		return err
	}))
}

// destroyAll destroys all machines and checks that nothing is left.
func (c *crashTest) destroyAll() {
	c.t.Helper()
	for id := range c.accepted {
		c.destroy(id)
		if !c.destroyed[id] {
			c.t.Errorf("machine %s was not destroyed", id)
		}
	}
	tombstones := func() []string {
		files, err := filepath.Glob(filepath.Join(c.data, "vms", "*.json"))
		harness.Must(c.t, err)
		return files
	}
	// Tombstones stay until callbacks that were refused are accepted.
	for deadline := time.Now().Add(harness.Timeout); len(tombstones()) > 0 && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	harness.Must(c.t, c.daemon.Stop())
	for _, leftover := range e2e.Leftovers(c.data) {
		c.t.Errorf("left behind: %s", leftover)
	}
	for _, dir := range []string{c.data, c.temp} {
		harness.Must(c.t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() && (dir == c.temp || e.Name()[0] == '.' || strings.Contains(e.Name(), ".part")) {
				c.t.Errorf("left behind: %s", path)
			}
			return err
		}))
	}
}

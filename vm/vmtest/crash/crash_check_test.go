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

	"osx-builder/vm/vmtest/harness"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
)

// settle waits until all that was begun has ended, and checks it.
func (c *crasher) settle(round int) {
	c.t.Helper()
	c.mu.Lock()
	open := c.open
	c.open = make(map[string]string)
	c.mu.Unlock()
	for key, name := range open {
		if status, v := c.post(name, key); status == http.StatusAccepted {
			c.accepted[v.ID] = name
		}
	}
	for id := range c.doomed {
		if !c.deleted[id] {
			c.destroy(id)
		}
	}
	for id := range c.deleted {
		if !c.buried[id] {
			c.checkGone(round, id)
			c.buried[id] = true
		}
		delete(c.accepted, id)
	}
	live := c.listed(round)
	for id, name := range c.accepted {
		v, ok := live[id]
		if !ok {
			c.t.Errorf("round %d: machine %s was accepted and is lost", round, id)
			continue
		}
		c.check(round, v, name)
	}
	c.checkMachines(round, live)
	c.checkNetwork(round, live)
	c.checkGold(round)
}

// listed returns the machines there are, each settled. Those of lost answers
// are taken in.
func (c *crasher) listed(round int) map[string]vm.VM {
	c.t.Helper()
	var list struct{ VMs []vm.VM }
	a, err := c.daemon.Do("GET", "/vms", "", nil)
	harness.Must(c.t, err)
	harness.Must(c.t, a.JSON(&list))
	live := make(map[string]vm.VM)
	for _, v := range list.VMs {
		v, _, err := c.daemon.VM("GET", "/vms/"+v.ID+"?wait=2m", nil, http.StatusOK)
		harness.Must(c.t, err)
		live[v.ID] = v
		if _, known := c.accepted[v.ID]; !known {
			c.strangers++
			c.accepted[v.ID] = strings.TrimPrefix(v.Image.URL[strings.LastIndex(v.Image.URL, "/"):], "/")
		}
	}
	if c.strangers > c.lost {
		c.t.Errorf("round %d: %d machines that nobody asked for, %d answers were lost", round, c.strangers, c.lost)
	}
	return live
}

// check holds one machine against its promise: settled as its image allows,
// its callback made and right.
func (c *crasher) check(round int, v vm.VM, name string) {
	c.t.Helper()
	want := vm.Ready
	if strings.HasPrefix(name, "bad-") {
		want = vm.Failed
	}
	excused := v.Error != nil && (v.Error.Code == vm.CodeAttempts || c.shot[v.ID])
	if v.Phase != want && !excused {
		c.t.Errorf("round %d: machine %s of %s is %s (%+v), want %s", round, v.ID, name, v.Phase, v.Error, want)
	}
	if want == vm.Ready && v.Phase == vm.Ready && v.Status != vm.PoweredOn && !c.shot[v.ID] {
		c.t.Errorf("round %d: machine %s is ready and %q", round, v.ID, v.Status)
	}
	c.checkCallback(round, v.ID, func(told string) bool { return told == said(v) })
}

// checkGone holds a destroyed machine against its promise: not to be found,
// and its callback made all the same.
func (c *crasher) checkGone(round int, id string) {
	c.t.Helper()
	a, err := c.daemon.Do("GET", "/vms/"+id, "", nil)
	if err != nil || a.Status != http.StatusNotFound {
		c.t.Errorf("round %d: machine %s was destroyed, and GET answers %d %s %v", round, id, a.Status, a.Body, err)
	}
	good := []string{"ready", "destroying creation-cancelled", "failed too-many-attempts"}
	failed := strings.HasPrefix(c.accepted[id], "bad-") || c.shot[id]
	c.checkCallback(round, id, func(told string) bool {
		return slices.Contains(good, told) && (told != "ready" || !strings.HasPrefix(c.accepted[id], "bad-")) || (failed && strings.HasPrefix(told, "failed "))
	})
}

// checkCallback waits for a machine's callback. However often it came, it said
// one thing, which is right.
func (c *crasher) checkCallback(round int, id string, right func(string) bool) {
	c.t.Helper()
	for deadline := time.Now().Add(harness.Patience); ; time.Sleep(20 * time.Millisecond) {
		c.mu.Lock()
		told := slices.Compact(slices.Clone(c.phases[id]))
		c.mu.Unlock()
		switch {
		case len(told) > 1 || (len(told) == 1 && !right(told[0])):
			c.t.Errorf("round %d: the callbacks of machine %s, of %s, said %q", round, id, c.accepted[id], told)
			return
		case len(told) == 1:
			return
		case time.Now().After(deadline):
			c.t.Errorf("round %d: no callback of machine %s came", round, id)
			return
		}
	}
}

// checkMachines holds the hypervisor's view against the records'.
func (c *crasher) checkMachines(round int, live map[string]vm.VM) {
	c.t.Helper()
	running := c.processes()
	for id, pids := range running {
		if v, ok := live[id]; !ok || len(pids) != 1 || v.Phase != vm.Ready {
			c.t.Errorf("round %d: machine %s, %s, has processes %v", round, id, v.Phase, pids)
		}
	}
	entries, err := os.ReadDir(filepath.Join(c.data, "vms"))
	harness.Must(c.t, err)
	for _, e := range entries {
		if e.Name()[0] == '.' {
			continue // a record that is being written; clear looks for those that were not
		}
		id := strings.TrimSuffix(e.Name(), ".json")
		v, ok := live[id]
		gone := c.deleted[id] && id != e.Name() // a tombstone: its callback may still be due
		if (!ok && !gone) || (e.IsDir() && v.Phase != vm.Ready) {
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

// checkNetwork holds the host's devices and leases against the machines.
func (c *crasher) checkNetwork(round int, live map[string]vm.VM) {
	c.t.Helper()
	cards := make(map[string]bool)
	on := 0
	for _, v := range live {
		cards[v.MACAddress] = true
		if v.Status == vm.PoweredOn {
			on++
		}
	}
	taps := 0
	for _, trace := range e2e.Leftovers(c.data) {
		kind, rest, _ := strings.Cut(trace, " ")
		switch {
		case kind == "device" && !strings.Contains(rest, "-"): // a bridge's name has one
			taps++
		case kind == "lease" && !slices.ContainsFunc(strings.Fields(rest), func(f string) bool { return cards[f] }):
			c.t.Errorf("round %d: a lease is left: %s", round, rest)
		}
	}
	if c.qemu && (taps < on || taps > len(live)) {
		c.t.Errorf("round %d: there are %d taps, want one for each of the %d machines that are on and none for others than the %d there are", round, taps, on, len(live))
	}
}

// processes are the QEMUs that run, by machine.
func (c *crasher) processes() map[string][]int {
	found := make(map[string][]int)
	if !c.qemu {
		return found
	}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(b), c.data) {
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

// checkGold holds the gold images against what they were when first seen.
func (c *crasher) checkGold(round int) {
	c.t.Helper()
	harness.Must(c.t, filepath.WalkDir(filepath.Join(c.data, "images", "gold"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "image.json" {
			return err
		}
		sum, err := e2e.SHA256(path)
		if known := c.gold[path]; known != "" && known != sum {
			c.t.Errorf("round %d: the gold image's %s changed", round, path)
		}
		c.gold[path] = sum
		return err
	}))
}

// clear destroys everything, and looks for what is left.
func (c *crasher) clear() {
	c.t.Helper()
	for id := range c.accepted {
		c.destroy(id)
		if !c.deleted[id] {
			c.t.Errorf("machine %s was not destroyed", id)
		}
	}
	tombs := func() []string {
		files, err := filepath.Glob(filepath.Join(c.data, "vms", "*.json"))
		harness.Must(c.t, err)
		return files
	}
	// What tombstones are left wait for callbacks that were refused.
	for deadline := time.Now().Add(harness.Patience); len(tombs()) > 0 && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	harness.Must(c.t, c.daemon.Stop())
	for _, trace := range e2e.Leftovers(c.data) {
		c.t.Errorf("left behind: %s", trace)
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

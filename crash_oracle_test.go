package main_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
)

// crasher knows what was promised.
type crasher struct {
	crashPlan
	t      *testing.T
	data   string
	daemon *e2e.Daemon
	rand   *rand.Rand
	names  []string
	bodies map[string][]byte
	gold   map[string]string // checksum of each gold image's file

	mu       sync.Mutex          // guards what follows
	accepted map[string]string   // the image's name, by machine
	doomed   map[string]bool     // machines whose destruction was asked for
	deleted  map[string]bool     // and those whose destruction was answered
	shot     map[string]bool     // machines whose QEMU was killed
	open     map[string]string   // keys, and the image, of creations whose answer was lost
	lost     int                 // those creations, without key too
	phases   map[string][]string // what callbacks said, by machine
	ids      map[string]string   // the machine of each webhook-id
	posts    int
}

func newCrasher(t *testing.T, p crashPlan) *crasher {
	t.Helper()
	data, err := os.MkdirTemp("", "osxb")
	must(t, err)
	c := &crasher{
		crashPlan: p, t: t, data: data, rand: rand.New(rand.NewPCG(p.seed, 1)), bodies: make(map[string][]byte),
		gold: make(map[string]string), accepted: make(map[string]string), doomed: make(map[string]bool), deleted: make(map[string]bool),
		shot: make(map[string]bool), open: make(map[string]string), phases: make(map[string][]string), ids: make(map[string]string),
	}
	web := httptest.NewServer(http.HandlerFunc(c.serve))
	for name, archive := range p.images {
		sum := sha256.Sum256(archive)
		c.names = append(c.names, name)
		i := e2e.Image{URL: web.URL + "/" + name, SHA256: hex.EncodeToString(sum[:])}
		c.bodies[name] = i.Body(map[string]any{"memory": "128mib", "cpus": 1, "callback_url": web.URL + "/callback"})
	}
	t.Cleanup(func() {
		if c.daemon != nil {
			must(t, c.daemon.Kill())
		}
		for id, pids := range c.processes() { // where the test failed on its way
			for _, pid := range pids {
				t.Errorf("machine %s is left: process %d", id, pid)
				if p, err := os.FindProcess(pid); err == nil {
					_ = p.Kill()
				}
			}
		}
		web.Close()
		makeWritable(data)
		must(t, os.RemoveAll(data))
	})
	return c
}

// makeWritable lets a folder with gold images be removed without root.
func makeWritable(dir string) {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
}

func (c *crasher) between(least, most time.Duration) time.Duration {
	return least + time.Duration(c.rand.Int64N(int64(most-least)))
}

// serve is the web site of the images, and the receiver of callbacks, which
// refuses some.
func (c *crasher) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		archive := c.images[strings.TrimPrefix(r.URL.Path, "/")]
		w.Header().Set("Content-Length", strconv.Itoa(len(archive)))
		for len(archive) > 0 { // slowly, so that kills meet downloads
			n := min(len(archive), 1<<16)
			if _, err := w.Write(archive[:n]); err != nil {
				return
			}
			archive = archive[n:]
			if !c.qemu {
				time.Sleep(time.Millisecond)
			}
		}
		return
	}
	body, err := io.ReadAll(r.Body)
	var v vm.VM
	if err != nil || json.Unmarshal(body, &v) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.posts++; c.posts%7 == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	id := r.Header.Get("Webhook-Id")
	if known := c.ids[id]; known != "" && known != v.ID {
		c.t.Errorf("callback %s was for machine %s, and now for %s", id, known, v.ID)
	}
	c.ids[id] = v.ID
	said := string(v.Phase)
	if v.Error != nil {
		said += " " + string(v.Error.Code)
	}
	c.phases[v.ID] = append(c.phases[v.ID], said)
}

// settle waits until all that was begun has ended, and checks it.
func (c *crasher) settle(round int) {
	c.t.Helper()
	c.mu.Lock()
	open := c.open
	c.open = make(map[string]string)
	c.mu.Unlock()
	for key, name := range open {
		if status, v := c.post(name, key); key != "" && status == http.StatusAccepted {
			c.accepted[v.ID] = name
		}
	}
	for id := range c.doomed {
		if !c.deleted[id] {
			c.destroy(id)
		}
	}
	for id := range c.deleted {
		a, err := c.daemon.Do("GET", "/vms/"+id, "", nil)
		if err != nil || a.Status != http.StatusNotFound {
			c.t.Errorf("round %d: machine %s was destroyed, and GET answers %d %s %v", round, id, a.Status, a.Body, err)
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
	c.checkGold(round)
}

// listed returns the machines there are, each settled. Those of lost answers
// are taken in.
func (c *crasher) listed(round int) map[string]vm.VM {
	c.t.Helper()
	var list struct{ VMs []vm.VM }
	a, err := c.daemon.Do("GET", "/vms", "", nil)
	must(c.t, err)
	must(c.t, a.JSON(&list))
	live := make(map[string]vm.VM)
	strangers := 0
	for _, v := range list.VMs {
		v, _, err := c.daemon.VM("GET", "/vms/"+v.ID+"?wait=2m", nil, http.StatusOK)
		must(c.t, err)
		live[v.ID] = v
		if _, known := c.accepted[v.ID]; !known {
			strangers++
			c.accepted[v.ID] = strings.TrimPrefix(v.Image.URL[strings.LastIndex(v.Image.URL, "/"):], "/")
		}
	}
	if strangers > c.lost {
		c.t.Errorf("round %d: %d machines that nobody asked for, %d answers were lost", round, strangers, c.lost)
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
	said := string(v.Phase)
	if v.Error != nil {
		said += " " + string(v.Error.Code)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c.mu.Lock()
		phases := c.phases[v.ID]
		c.mu.Unlock()
		for _, p := range phases {
			if p != said {
				c.t.Errorf("round %d: the callback of %s said %q, and it is %q", round, v.ID, p, said)
				return
			}
		}
		if len(phases) > 0 {
			return
		}
		if time.Now().After(deadline) {
			c.t.Errorf("round %d: machine %s is %s, and no callback came: %+v", round, v.ID, v.Phase, v.Callback)
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
	must(c.t, err)
	for _, e := range entries {
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
	must(c.t, filepath.WalkDir(filepath.Join(c.data, "images", "gold"), func(path string, e fs.DirEntry, err error) error {
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
	var left []string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if left = e2e.Traces(c.data); len(left) == 0 || !strings.Contains(fmt.Sprint(left), ".json") {
			break // what tombstones are left wait for callbacks that were refused
		}
	}
	for _, trace := range left {
		if !strings.Contains(trace, "osxb") && !strings.Contains(trace, "dnsmasq") || strings.Contains(trace, "file ") {
			c.t.Errorf("left behind: %s", trace)
		}
	}
	parts, _ := filepath.Glob(filepath.Join(c.data, "images", "*.part*"))
	if len(parts) > 0 {
		c.t.Errorf("left behind: %v", parts)
	}
}

package crash_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"osx-builder/vm/vmtest/harness"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
)

// TestCrash kills the daemon at random moments of a random mix of requests,
// again and again, and holds what is left against what was promised.
//
// CRASH_ROUNDS and CRASH_QEMU_ROUNDS say how often it is killed with the
// driver that has no hypervisor and with QEMU; CRASH_SEED repeats a run's
// choices.
func TestCrash(t *testing.T) {
	seed := uint64(harness.EnvInt(t, "CRASH_SEED", int(time.Now().UnixNano()&0xffffff)))
	t.Run("memory", func(t *testing.T) {
		crash(t, crashPlan{
			rounds: harness.EnvInt(t, "CRASH_ROUNDS", 12), each: 4, seed: seed,
			binary: harness.MemoryDaemon(t), images: harness.MemoryImages(t), least: 20 * time.Millisecond, most: 500 * time.Millisecond, ops: 12,
		})
	})
	t.Run("qemu", func(t *testing.T) {
		harness.New(t).Image(harness.TinyVM) // says why where it cannot be had
		crash(t, crashPlan{
			rounds: harness.EnvInt(t, "CRASH_QEMU_ROUNDS", 3), each: 3, seed: seed, qemu: true,
			binary: harness.Binary(t), images: qemuImages(t), least: 200 * time.Millisecond, most: 4 * time.Second, ops: 4,
		})
	})
}

// crashPlan says how to go about it.
type crashPlan struct {
	rounds, each int // kills, and after how many of them all is checked
	seed         uint64
	qemu         bool
	binary       string
	images       map[string][]byte // served by name; those named bad-... fail
	least, most  time.Duration     // from the start of a round to its kill
	ops          int               // requests at once and after another, a round
}

func qemuImages(t *testing.T) map[string][]byte {
	b, err := os.ReadFile(filepath.Join(harness.BuildDir(t), harness.TinyVM))
	harness.Must(t, err)
	return map[string][]byte{harness.TinyVM: b, "bad-archive": []byte("no archive")}
}

// crash is one run.
func crash(t *testing.T, p crashPlan) {
	c := newCrasher(t, p)
	t.Logf("seed %d; CRASH_SEED=%d repeats its choices", p.seed, p.seed)
	for round := 1; round <= p.rounds; round++ {
		c.start()
		c.trouble()
		if c.qemu && c.rand.IntN(4) == 0 {
			c.killMachine() // while the daemon is away
		}
		if c.rand.IntN(3) == 0 {
			c.killWhileStarting()
		}
		if round%p.each == 0 || round == p.rounds {
			c.start()
			c.settle(round)
			if t.Failed() {
				t.Fatalf("round %d, seed %d; the last daemon's log:\n%s", round, p.seed, c.daemon.Log())
			}
			harness.Must(t, c.daemon.Stop())
		}
	}
	c.start()
	c.clear()
	t.Logf("%d rounds: %d machines accepted, %d creations whose answer was lost, %d destroyed, %d callbacks", p.rounds, len(c.accepted), c.lost, len(c.deleted), c.posts)
}

// start runs the daemon on what the one before left.
func (c *crasher) start() {
	c.t.Helper()
	began := time.Now()
	d, err := e2e.Start(e2e.Options{Binary: c.binary, Data: c.data, Env: c.env(), Args: []string{"-creations", "200", "-memory-reserve", "1mib"}})
	if err != nil {
		c.t.Fatalf("the daemon did not start again: %v", err)
	}
	c.daemon, c.startTook = d, time.Since(began)
}

// env has a folder for temporary files that can be looked into.
func (c *crasher) env() []string { return append(os.Environ(), "TMPDIR="+c.temp) }

func (c *crasher) kill() {
	harness.Must(c.t, c.daemon.Kill())
	if bytes.Contains([]byte(c.daemon.Log()), []byte("DATA RACE")) {
		c.t.Errorf("the daemon's log:\n%s", c.daemon.Log())
	}
}

// killWhileStarting kills a daemon at any moment of its start or soon after.
func (c *crasher) killWhileStarting() {
	cmd := exec.Command(c.binary, "-data", c.data, "-listen", "127.0.0.1:0")
	cmd.Env = c.env()
	harness.Must(c.t, cmd.Start())
	time.Sleep(c.between(0, c.startTook*3/2))
	_ = cmd.Process.Kill() // there is nothing that it could have ended by
	_ = cmd.Wait()
}

// trouble sends requests until it is time for the kill.
func (c *crasher) trouble() {
	until := time.Now().Add(c.between(c.least, c.most))
	var wg sync.WaitGroup
	for range c.ops {
		seed := c.rand.Uint64()
		wg.Go(func() {
			r := rand.New(rand.NewPCG(c.seed, seed))
			time.Sleep(time.Duration(r.Int64N(int64(max(time.Until(until), 1)))))
			c.request(r)
		})
	}
	if c.qemu && c.rand.IntN(2) == 0 {
		time.Sleep(time.Until(until) / 2)
		c.killMachine()
	}
	time.Sleep(time.Until(until))
	c.kill()
	wg.Wait() // their answers may not come any more
}

// request sends one request of a random kind.
func (c *crasher) request(r *rand.Rand) {
	switch n := r.IntN(10); {
	case n < 5:
		c.create(r)
	case n < 7:
		_, _ = c.daemon.Do("GET", "/vms", "", nil) // a read changes nothing, which is for settle to see
	default:
		if id := c.pick(r); id != "" {
			c.destroy(id)
		}
	}
}

// create asks for a machine, sometimes with a key that was used before.
func (c *crasher) create(r *rand.Rand) {
	name := c.names[r.IntN(len(c.names))]
	key := ""
	if r.IntN(2) == 0 {
		key = fmt.Sprintf("%s-%d", name, r.IntN(3))
	}
	status, v := c.post(name, key)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case status == http.StatusAccepted:
		c.accepted[v.ID] = name
		if last := c.keyed[key]; key != "" && last != "" && last != v.ID && !c.doomed[last] && !c.doomed[v.ID] {
			c.t.Errorf("key %s made machine %s, and then %s", key, last, v.ID)
		}
		c.keyed[key] = v.ID
	case status == 0:
		c.lost++
		if key != "" {
			c.open[key] = name
		}
	case status != http.StatusServiceUnavailable:
		c.t.Errorf("POST: got status %d", status)
	}
}

// post returns 0 where no answer came.
func (c *crasher) post(name, key string) (int, vm.VM) {
	body := c.bodies[name]
	req, err := http.NewRequest("POST", c.daemon.URL+"/vms", bytes.NewReader(body))
	if err != nil {
		return 0, vm.VM{}
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	a, err := c.daemon.Send(req)
	if err != nil {
		return 0, vm.VM{}
	}
	var v vm.VM
	if a.Status == http.StatusAccepted && a.JSON(&v) != nil {
		return 0, vm.VM{}
	}
	return a.Status, v
}

// pick chooses a machine that nobody asked to be destroyed.
func (c *crasher) pick(r *rand.Rand) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	skip := r.IntN(max(len(c.accepted), 1))
	for id := range c.accepted {
		if skip--; skip < 0 && !c.doomed[id] {
			return id
		}
	}
	return ""
}

// destroy asks for a machine's destruction. Without an answer it is doomed all
// the same: it may be there or not.
func (c *crasher) destroy(id string) {
	c.mu.Lock()
	c.doomed[id] = true
	c.mu.Unlock()
	a, err := c.daemon.Do("DELETE", "/vms/"+id, "", nil)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch a.Status {
	case http.StatusNoContent, http.StatusNotFound:
		c.deleted[id] = true
	case http.StatusServiceUnavailable:
	default:
		c.t.Errorf("DELETE: got %d %s", a.Status, a.Body)
	}
}

// killMachine kills one of the QEMUs, as the kernel does for want of memory.
func (c *crasher) killMachine() {
	for id, pids := range c.processes() {
		c.mu.Lock()
		c.shot[id] = true
		c.mu.Unlock()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
		return
	}
}

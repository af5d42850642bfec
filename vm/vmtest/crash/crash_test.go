package crash_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// TestCrash sends random requests, kills the daemon at a random moment, starts
// it again, and compares the machines with the answers it gave.
//
// CRASH_ROUNDS and CRASH_QEMU_ROUNDS set the number of kills with the in-memory
// driver and with QEMU. CRASH_SEED repeats the random choices of a run.
func TestCrash(t *testing.T) {
	seed := uint64(harness.EnvInt(t, "CRASH_SEED", int(time.Now().UnixNano()&0xffffff)))
	t.Run("memory", func(t *testing.T) {
		runRounds(t, config{
			rounds: harness.EnvInt(t, "CRASH_ROUNDS", 12), checkEvery: 4, seed: seed,
			binary: harness.MemoryDaemon(t), images: harness.MemoryImages(t),
			minUptime: 20 * time.Millisecond, maxUptime: 500 * time.Millisecond, requests: 12,
		})
	})
	t.Run("qemu", func(t *testing.T) {
		harness.New(t).Image(harness.TinyVM) // skips the test if the image is missing
		runRounds(t, config{
			rounds: harness.EnvInt(t, "CRASH_QEMU_ROUNDS", 3), checkEvery: 3, seed: seed, qemu: true,
			binary: harness.Binary(t), images: qemuImages(t),
			minUptime: 200 * time.Millisecond, maxUptime: 4 * time.Second, requests: 4,
		})
	})
}

// config configures a run.
type config struct {
	rounds, checkEvery   int // the number of kills, and after how many of them the state is checked
	seed                 uint64
	qemu                 bool
	binary               string
	images               map[string][]byte // archives by name; machines of images named bad-... fail
	minUptime, maxUptime time.Duration     // from the start of a round to its kill
	requests             int               // concurrent requests per round
}

func qemuImages(t *testing.T) map[string][]byte {
	b, err := os.ReadFile(filepath.Join(harness.BuildDir(t), harness.TinyVM))
	harness.Must(t, err)
	return map[string][]byte{harness.TinyVM: b, "bad-archive": []byte("no archive")}
}

// runRounds does one run.
func runRounds(t *testing.T, cfg config) {
	c := newCrashTest(t, cfg)
	t.Logf("seed %d; CRASH_SEED=%d repeats its choices", cfg.seed, cfg.seed)
	for round := 1; round <= cfg.rounds; round++ {
		c.start()
		c.sendRequestsAndKill()
		if c.qemu && c.rand.IntN(4) == 0 {
			c.killQEMU() // while the daemon is down
		}
		if c.rand.IntN(3) == 0 {
			c.killDuringStart()
		}
		if round%cfg.checkEvery == 0 || round == cfg.rounds {
			c.start()
			c.checkState(round)
			if t.Failed() {
				t.Fatalf("round %d, seed %d; the last daemon's log:\n%s", round, cfg.seed, c.daemon.Log())
			}
			harness.Must(t, c.daemon.Stop())
		}
	}
	c.start()
	c.destroyAll()
	t.Logf("%d rounds: %d machines accepted, %d creations without an answer, %d destroyed, %d callbacks",
		cfg.rounds, len(c.accepted), c.creationsUnanswered, len(c.destroyed), c.callbackCount)
}

// start starts a daemon on the data of the previous one.
func (c *crashTest) start() {
	c.t.Helper()
	begin := time.Now()
	d, err := e2e.Start(e2e.Options{
		Binary: c.binary, Data: c.data, Env: c.env(),
		Args: []string{"-creations", "200", "-memory-reserve", "1mib"},
	})
	if err != nil {
		c.t.Fatalf("the daemon did not start again: %v", err)
	}
	c.daemon, c.startDuration = d, time.Since(begin)
}

// env gives the daemon its own folder for temporary files, which destroyAll
// checks.
func (c *crashTest) env() []string { return append(os.Environ(), "TMPDIR="+c.temp) }

func (c *crashTest) kill() {
	harness.Must(c.t, c.daemon.Kill())
	if strings.Contains(c.daemon.Log(), "DATA RACE") {
		c.t.Errorf("the daemon's log:\n%s", c.daemon.Log())
	}
}

// killDuringStart kills a daemon at a random moment while it starts or shortly
// after.
func (c *crashTest) killDuringStart() {
	cmd := exec.Command(c.binary, "-data", c.data, "-listen", "127.0.0.1:0")
	cmd.Env = c.env()
	harness.Must(c.t, cmd.Start())
	time.Sleep(c.randomDuration(0, c.startDuration*3/2))
	_ = cmd.Process.Kill() // nothing else ends the process
	_ = cmd.Wait()
}

// sendRequestsAndKill sends random requests until a random deadline and then
// kills the daemon.
func (c *crashTest) sendRequestsAndKill() {
	deadline := time.Now().Add(c.randomDuration(c.minUptime, c.maxUptime))
	var wg sync.WaitGroup
	for range c.requests {
		stream := c.rand.Uint64()
		wg.Go(func() {
			r := rand.New(rand.NewPCG(c.seed, stream))
			time.Sleep(time.Duration(r.Int64N(int64(max(time.Until(deadline), 1)))))
			c.sendRequest(r)
		})
	}
	if c.qemu && c.rand.IntN(2) == 0 {
		time.Sleep(time.Until(deadline) / 2)
		c.killQEMU()
	}
	time.Sleep(time.Until(deadline))
	c.kill()
	wg.Wait() // some requests stay unanswered
}

// sendRequest sends one request of a random kind.
func (c *crashTest) sendRequest(r *rand.Rand) {
	switch n := r.IntN(10); {
	case n < 5:
		c.create(r)
	case n < 7:
		_, _ = c.daemon.Do("GET", "/vms", "", nil) // must change nothing, which checkState verifies
	default:
		if id := c.randomMachine(r); id != "" {
			c.destroy(id)
		}
	}
}

// create creates a machine, sometimes with an idempotency key that was used
// before.
func (c *crashTest) create(r *rand.Rand) {
	image := c.imageNames[r.IntN(len(c.imageNames))]
	key := ""
	if r.IntN(2) == 0 {
		key = fmt.Sprintf("%s-%d", image, r.IntN(3))
	}
	status, v := c.post(image, key)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case status == http.StatusAccepted:
		c.accepted[v.ID] = image
		last := c.machineByKey[key]
		if key != "" && last != "" && last != v.ID && !c.destroySent[last] && !c.destroySent[v.ID] {
			c.t.Errorf("key %s created machine %s, and then %s", key, last, v.ID)
		}
		c.machineByKey[key] = v.ID
	case status == 0:
		c.creationsUnanswered++
		if key != "" {
			c.unansweredKeys[key] = image
		}
	case status != http.StatusServiceUnavailable:
		c.t.Errorf("POST: got status %d", status)
	}
}

// post returns the status 0 if there is no answer.
func (c *crashTest) post(image, key string) (int, vm.VM) {
	req, err := http.NewRequest("POST", c.daemon.URL+"/vms", bytes.NewReader(c.bodies[image]))
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

// randomMachine returns a machine for which no DELETE was sent, or "".
func (c *crashTest) randomMachine(r *rand.Rand) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	skip := r.IntN(max(len(c.accepted), 1))
	for id := range c.accepted {
		if skip--; skip < 0 && !c.destroySent[id] {
			return id
		}
	}
	return ""
}

// destroy sends a DELETE. Without an answer the machine may or may not exist.
func (c *crashTest) destroy(id string) {
	c.mu.Lock()
	c.destroySent[id] = true
	c.mu.Unlock()
	a, err := c.daemon.Do("DELETE", "/vms/"+id, "", nil)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch a.Status {
	case http.StatusNoContent, http.StatusNotFound:
		c.destroyed[id] = true
	case http.StatusServiceUnavailable:
	default:
		c.t.Errorf("DELETE: got %d %s", a.Status, a.Body)
	}
}

// killQEMU kills the QEMU of one machine, as the kernel's OOM killer does.
func (c *crashTest) killQEMU() {
	for id, pids := range c.qemuProcesses() {
		c.mu.Lock()
		c.qemuKilled[id] = true
		c.mu.Unlock()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
		return
	}
}

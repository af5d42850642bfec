package crash_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// crashTest is a run. It records what the daemon answered and which callbacks
// it sent, so that both can be compared with the machines later.
type crashTest struct {
	config
	t          *testing.T
	data       string
	temp       string // for temporary files of the daemons
	daemon     *e2e.Daemon
	rand       *rand.Rand
	imageNames []string
	bodies     map[string][]byte // of POST /vms, by image
	goldSums   map[string]string // checksums of the gold images' files, by path

	mu                  sync.Mutex          // guards the fields below
	accepted            map[string]string   // the image of each machine
	destroySent         map[string]bool     // machines for which a DELETE was sent
	destroyed           map[string]bool     // machines for which a DELETE was answered with success
	qemuKilled          map[string]bool     // machines whose QEMU was killed
	unansweredKeys      map[string]string   // idempotency keys of creations without an answer, and their image
	creationsUnanswered int                 // with and without a key
	machineByKey        map[string]string   // the last machine that was created with each idempotency key
	outcomes            map[string][]string // from the callbacks of each machine
	callbackBodies      map[string]string   // by webhook-id
	callbackCount       int

	unknownMachines int             // machines whose creation was not answered
	checkedGone     map[string]bool // destroyed machines that were checked
	startDuration   time.Duration   // of the last start
}

func newCrashTest(t *testing.T, cfg config) *crashTest {
	t.Helper()
	c := &crashTest{
		config: cfg, t: t, data: harness.DataDir(t), temp: t.TempDir(), rand: rand.New(rand.NewPCG(cfg.seed, 1)),
		bodies: make(map[string][]byte), goldSums: make(map[string]string),
		accepted: make(map[string]string), destroySent: make(map[string]bool), destroyed: make(map[string]bool),
		qemuKilled: make(map[string]bool), unansweredKeys: make(map[string]string), machineByKey: make(map[string]string),
		outcomes: make(map[string][]string), callbackBodies: make(map[string]string), checkedGone: make(map[string]bool),
	}
	web := httptest.NewServer(http.HandlerFunc(c.serve))
	for name, archive := range cfg.images {
		sum := sha256.Sum256(archive)
		c.imageNames = append(c.imageNames, name)
		i := e2e.Image{URL: web.URL + "/" + name, SHA256: hex.EncodeToString(sum[:])}
		c.bodies[name] = i.Body(map[string]any{"memory": "128mib", "cpus": 1, "callback_url": web.URL + "/callback"})
	}
	t.Cleanup(func() {
		if c.daemon != nil {
			harness.Must(t, c.daemon.Kill())
		}
		for id, pids := range c.qemuProcesses() { // there are none unless the test failed
			for _, pid := range pids {
				t.Errorf("machine %s is left: process %d", id, pid)
				if p, err := os.FindProcess(pid); err == nil {
					_ = p.Kill()
				}
			}
		}
		web.Close()
	})
	return c
}

func (c *crashTest) randomDuration(low, high time.Duration) time.Duration {
	return low + time.Duration(c.rand.Int64N(int64(high-low)))
}

// serve serves the images and receives the callbacks, some of which it refuses.
func (c *crashTest) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		c.serveImage(w, strings.TrimPrefix(r.URL.Path, "/"))
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
	id := r.Header.Get("Webhook-Id")
	if before := c.callbackBodies[id]; before != "" && before != string(body) {
		c.t.Errorf("callback %s had the body\n%s\nand now has\n%s", id, before, body)
	}
	c.callbackBodies[id] = string(body)
	if c.callbackCount++; c.callbackCount%7 == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	c.outcomes[v.ID] = append(c.outcomes[v.ID], outcome(v))
}

// serveImage writes an archive slowly, so that some kills interrupt downloads.
func (c *crashTest) serveImage(w http.ResponseWriter, name string) {
	archive := c.images[name]
	w.Header().Set("Content-Length", strconv.Itoa(len(archive)))
	for len(archive) > 0 {
		n := min(len(archive), 1<<16)
		if _, err := w.Write(archive[:n]); err != nil {
			return
		}
		archive = archive[n:]
		if !c.qemu {
			time.Sleep(time.Millisecond)
		}
	}
}

// outcome returns the phase of a machine and its error code, if it has one.
func outcome(v vm.VM) string {
	if v.Error == nil {
		return string(v.Phase)
	}
	return string(v.Phase) + " " + string(v.Error.Code)
}

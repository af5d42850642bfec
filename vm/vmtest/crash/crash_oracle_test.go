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

	"osx-builder/vm/vmtest/harness"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
)

// crasher knows what was promised.
type crasher struct {
	crashPlan
	t      *testing.T
	data   string
	temp   string // where daemons have their temporary files
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
	keyed    map[string]string   // the machine that was last made with each key
	phases   map[string][]string // what callbacks said, by machine
	sent     map[string]string   // the body of each webhook-id
	posts    int

	strangers int             // machines of lost answers
	buried    map[string]bool // machines of which all was checked to be gone
	startTook time.Duration   // by the last start
}

func newCrasher(t *testing.T, p crashPlan) *crasher {
	t.Helper()
	data, err := os.MkdirTemp("", "osxb")
	harness.Must(t, err)
	c := &crasher{
		crashPlan: p, t: t, data: data, temp: t.TempDir(), rand: rand.New(rand.NewPCG(p.seed, 1)), bodies: make(map[string][]byte),
		gold: make(map[string]string), accepted: make(map[string]string), doomed: make(map[string]bool), deleted: make(map[string]bool),
		shot: make(map[string]bool), open: make(map[string]string), phases: make(map[string][]string), sent: make(map[string]string),
		keyed: make(map[string]string), buried: make(map[string]bool),
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
			harness.Must(t, c.daemon.Kill())
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
		harness.MakeWritable(data)
		harness.Must(t, os.RemoveAll(data))
	})
	return c
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
	id := r.Header.Get("Webhook-Id")
	if known := c.sent[id]; known != "" && known != string(body) {
		c.t.Errorf("callback %s said\n%s\nand now says\n%s", id, known, body)
	}
	c.sent[id] = string(body)
	if c.posts++; c.posts%7 == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	c.phases[v.ID] = append(c.phases[v.ID], said(v))
}

// said is what a machine's document says of its end.
func said(v vm.VM) string {
	if v.Error == nil {
		return string(v.Phase)
	}
	return string(v.Phase) + " " + string(v.Error.Code)
}

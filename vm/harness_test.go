package vm_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"osx-builder/callback"
	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// hangTimeout bounds every wait of these tests. It only ends tests that hang.
const hangTimeout = 3 * time.Minute

// everyone selects the machines of all owners.
var everyone = vm.Owners{All: true}

// harness is a Manager with a real image cache, real HTTP servers and the driver
// without a hypervisor.
type harness struct {
	t       *testing.T
	dir     string
	driver  *vmtest.Driver
	options func(*vm.Options)
	limits  image.Limits

	cacheBytes int64
	control    func(network, address string, c syscall.RawConn) error

	images    *image.Cache
	callbacks *callback.Sender
	vms       *vm.Manager

	web       *httptest.Server
	archive   []byte
	downloads atomic.Int32
	serve     func(http.ResponseWriter, *http.Request) // instead of the archive

	mu     sync.Mutex
	posted int
	taken  chan vm.VM
	refuse atomic.Int32        // callbacks to answer with 503 first
	answer func(*http.Request) // called first for each callback
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	h := &harness{t: t, dir: vmtest.TempDir(t), driver: &vmtest.Driver{}, archive: archive(t), taken: make(chan vm.VM, 100)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /image.tar.gz", func(w http.ResponseWriter, r *http.Request) {
		h.downloads.Add(1)
		if h.serve != nil {
			h.serve(w, r)
			return
		}
		_, _ = w.Write(h.archive)
	})
	mux.HandleFunc("POST /callback", h.receive)
	h.web = httptest.NewServer(mux)
	t.Cleanup(h.web.Close)
	t.Cleanup(h.close)
	return h
}

func (h *harness) receive(w http.ResponseWriter, r *http.Request) {
	if h.answer != nil {
		_, _ = io.Copy(io.Discard, r.Body) // the server notices the end of a connection once it has read the body
		h.answer(r)
		return
	}
	if h.refuse.Add(-1) >= 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var v vm.VM
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
		h.t.Errorf("callback's body: %v", err)
	}
	h.mu.Lock()
	h.posted++
	h.mu.Unlock()
	h.taken <- v
}

// open opens a Manager on the harness's folder, as a daemon does at its start.
func (h *harness) open() *harness {
	h.t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{h.t}, nil))
	var err error
	h.images, err = image.Open(filepath.Join(h.dir, "images"), image.Options{
		Log: log, DialControl: h.control, Limits: h.limits, CacheBytes: h.cacheBytes,
	})
	must(h.t, err)
	h.callbacks = callback.New(callback.Options{DialControl: h.control})
	o := vm.Options{
		Dir: filepath.Join(h.dir, "vms"), Driver: h.driver, Hypervisor: "memory",
		Images: h.images, Callbacks: h.callbacks, Log: log,
	}
	if h.options != nil {
		h.options(&o)
	}
	h.vms, err = vm.Open(o)
	must(h.t, err)
	return h
}

func (h *harness) close() {
	if h.vms == nil {
		return
	}
	h.vms.Close()
	must(h.t, h.images.Close())
	h.callbacks.Close()
	h.vms = nil
}

// request returns a valid request.
func (h *harness) request() vm.Request {
	sum := sha256.Sum256(h.archive)
	return vm.Request{
		Image:       vm.Image{URL: h.web.URL + "/image.tar.gz", Checksum: hex.EncodeToString(sum[:]), ChecksumType: "sha256"},
		CallbackURL: h.web.URL + "/callback",
	}
}

func (h *harness) create(q vm.Request) vm.VM {
	h.t.Helper()
	v, err := h.vms.Create(h.t.Context(), q, "")
	must(h.t, err)
	return v
}

// wait returns the machine once it is settled.
func (h *harness) wait(id string) vm.VM {
	h.t.Helper()
	v, err := h.vms.Wait(h.t.Context(), id, time.Minute)
	must(h.t, err)
	return v
}

// callback returns the next callback that arrives.
func (h *harness) callback() vm.VM {
	h.t.Helper()
	select {
	case v := <-h.taken:
		return v
	case <-time.After(hangTimeout):
		h.t.Fatal("no callback in time")
		return vm.VM{}
	}
}

// delivered takes a machine's callback and returns the machine once that is
// written down: until then its job changes the record.
func (h *harness) delivered(id string) vm.VM {
	h.t.Helper()
	h.callback()
	v := h.wait(id)
	for deadline := time.Now().Add(hangTimeout); v.Callback.State != vm.CallbackDelivered && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		v = h.wait(id)
	}
	return v
}

// received returns how many callbacks have arrived.
func (h *harness) received() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.posted
}

// files lists the machines' folder.
func (h *harness) files() []string {
	h.t.Helper()
	var names []string
	entries, err := os.ReadDir(filepath.Join(h.dir, "vms"))
	must(h.t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// archive returns a small image: a folder with a .vmx file and a disk.
func archive(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, content := range map[string]string{
		"box/box.vmx":   "config.version = \"8\"\nguestOS = \"other\"\n",
		"box/disk.vmdk": "a disk",
	} {
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}))
		_, err := io.WriteString(w, content)
		must(t, err)
	}
	must(t, w.Close())
	must(t, z.Close())
	return b.Bytes()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testWriter writes the log to the test's output, which a failure shows.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(b))
	return len(b), nil
}

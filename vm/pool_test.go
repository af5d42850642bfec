package vm_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// preloadingDriver is a driver that prepares machines.
type preloadingDriver struct {
	vm.Driver

	mu     sync.Mutex
	fail   error           // of Preload; guarded by mu
	loaded map[string]bool // by machine; guarded by mu
}

func (d *preloadingDriver) Preload(_ context.Context, m vm.Machine) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	d.loaded[m.ID] = true
	return nil
}

func (d *preloadingDriver) setFailure(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = err
}

func (d *preloadingDriver) hasLoaded(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.loaded[id]
}

// newPool returns a harness with a pool of count machines of its image, which is in the cache.
func newPool(t *testing.T, count int, options func(*vm.Options)) (*harness, *preloadingDriver) {
	t.Helper()
	h := newHarness(t)
	d := &preloadingDriver{Driver: h.driver, loaded: map[string]bool{}}
	h.options = func(o *vm.Options) {
		o.Driver = d
		o.Pools = []vm.PoolOptions{{Checksum: "sha256:" + h.request().Image.Checksum, CPUs: 2, Memory: 510, Count: count}}
		if options != nil {
			options(o)
		}
	}
	h.open()
	h.pull()
	return h, d
}

// pooled returns a request that matches the pool.
func (h *harness) pooled() vm.Request {
	q := h.request()
	q.CPUs, q.Memory, q.Start = 2, "0.5gib", vm.StartMemory
	return q
}

// awaitPool waits until so many machines wait, and returns the pool.
func (h *harness) awaitPool(ready int) (p vm.Pool) {
	h.t.Helper()
	for deadline := time.Now().Add(hangTimeout); ; time.Sleep(5 * time.Millisecond) {
		p = h.vms.Capacity().Pools[0]
		if p.Ready == ready {
			return p
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("got pool %+v, want %d machines that wait", p, ready)
		}
	}
}

// Machines of a pool count, and nobody sees them. A request that matches gets one of them, whatever it says that does not
// change how a machine is prepared, and the pool is filled again. Other requests get other machines.
func TestPool(t *testing.T) {
	var uses []bool
	h, d := newPool(t, 2, func(o *vm.Options) { o.Hooks.PoolUsed = func(hit bool) { uses = append(uses, hit) } })
	p := h.awaitPool(2)
	if p.Count != 2 || p.CPUs != 2 || p.Memory != "512mib" || p.ChecksumType != "sha256" || p.Problem != "" {
		t.Errorf("got pool %+v", p)
	}
	waiting := h.files()
	if list, err := h.vms.List(t.Context(), vm.Filter{}, everyone); err != nil || len(list) > 0 || len(waiting) != 2 {
		t.Errorf("got machines %+v, %v and files %q, want two folders and no machine", list, err, waiting)
	}
	for _, id := range waiting {
		_, err := h.vms.Get(t.Context(), id)
		wantCode(t, "a machine that waits", err, vm.CodeNotFound)
	}
	if c := h.vms.Capacity(); c.PromisedMiB != 1024 || h.vms.Health(t.Context()).Machines != 0 {
		t.Errorf("got %+v and %d machines, want the memory of two promised, and none", c, h.vms.Health(t.Context()).Machines)
	}
	if i := h.pulled(); i.VMs != 0 {
		t.Errorf("got image %+v, want no machines that need it", i)
	}
	q := h.pooled()
	q.Image.URL += "?other"
	q.Owner = "ci"
	q.Labels, q.Forward, q.ToolsInitTimeout = vm.Labels{"job": "1"}, []int{80}, vm.Timeout(time.Minute)
	v := h.create(q)
	if !slices.Contains(waiting, v.ID) || !d.hasLoaded(v.ID) {
		t.Errorf("got machine %s, want one of %q", v.ID, waiting)
	}
	if got := h.wait(v.ID); got.Phase != vm.Ready || got.Status != vm.PoweredOn || got.Labels["job"] != "1" {
		t.Errorf("got %+v, want it ready with its labels", got)
	}
	if u := h.vms.Capacity().Owners["ci"]; u.VMs != 1 || u.MemoryMiB != 512 {
		t.Errorf("got %+v, want the machine to count as its owner's", u)
	}
	h.awaitPool(2)
	for what, change := range map[string]func(*vm.Request){
		"processors": func(q *vm.Request) { q.CPUs = 1 },
		"memory":     func(q *vm.Request) { q.Memory = "516mib" },
		"network":    func(q *vm.Request) { q.NetworkType = vm.HostOnly },
		"name":       func(q *vm.Request) { q.Name = "web" },
		"window":     func(q *vm.Request) { q.LaunchGUI = true },
		"start":      func(q *vm.Request) { q.Start = vm.StartBoot },
	} {
		q := h.pooled()
		change(&q)
		if v := h.create(q); d.hasLoaded(v.ID) {
			t.Errorf("a request with another %s got a machine of the pool", what)
		}
	}
	if want := []bool{true}; !slices.Equal(uses, want) {
		t.Errorf("got uses %v, want %v", uses, want)
	}
	must(t, h.vms.Destroy(t.Context(), v.ID))
	h.close()
	if left := h.files(); slices.ContainsFunc(left, func(name string) bool { return d.hasLoaded(name) }) {
		t.Errorf("got files %q after the daemon has stopped, want none of the pool", left)
	}
}

// A machine of a pool is handed out although all machines are there that may be. It is not if too many are being created,
// and waits on then. The error of others says how many wait.
func TestPoolWithinLimits(t *testing.T) {
	h, d := newPool(t, 2, func(o *vm.Options) { o.VMs, o.Creations = 3, 1 })
	h.awaitPool(2)
	started, release := make(chan struct{}), make(chan struct{})
	h.driver.Hook = func(ctx context.Context, s vmtest.Step, m vm.Machine) error {
		if s != vmtest.Start || d.hasLoaded(m.ID) {
			return nil
		}
		close(started)
		<-release
		return ctx.Err()
	}
	other := h.create(h.request())
	<-started
	_, err := h.vms.Create(t.Context(), h.pooled(), "key")
	wantCode(t, "one creation too many", err, vm.CodeBusy)
	h.awaitPool(2)
	close(release)
	h.wait(other.ID)
	_, err = h.vms.Create(t.Context(), h.request(), "")
	wantCode(t, "one machine too many", err, vm.CodeNoCapacity)
	if !strings.Contains(err.Error(), "2 of the machines wait in pools (-pool)") {
		t.Errorf("got %v, want the machines that wait in it", err)
	}
	v, err := h.vms.Create(t.Context(), h.pooled(), "key")
	must(t, err)
	if h.wait(v.ID); !d.hasLoaded(v.ID) {
		t.Error("got another machine than one of the pool")
	}
	for p := h.awaitPool(1); !strings.Contains(p.Problem, "which is the limit set by -vms"); p = h.awaitPool(1) {
		time.Sleep(5 * time.Millisecond) // hangTimeout of go test bounds it
	}
	if again, err := h.vms.Create(t.Context(), h.pooled(), "key"); err != nil || again.ID != v.ID {
		t.Errorf("got %s, %v for the same key, want %s", again.ID, err, v.ID)
	}
	h.awaitPool(1)
}

// What a killed daemon leaves of a pool is removed by the next start, whatever its pools are. A machine that was handed
// out stays.
func TestPoolAfterCrash(t *testing.T) {
	h, d := newPool(t, 3, nil)
	h.awaitPool(3)
	v := h.create(h.pooled())
	h.wait(v.ID)
	h.awaitPool(3)
	h.driver.Hook = func(_ context.Context, s vmtest.Step, _ vm.Machine) error {
		if s == vmtest.Destroy {
			return errors.New("killed")
		}
		return nil
	}
	h.close()
	if n := len(h.files()); n != 5 { // the machine's record and folder, and three more folders
		t.Fatalf("got files %q, want those of three machines of the pool", h.files())
	}
	h.driver.Hook = nil
	h.options = func(o *vm.Options) { o.Driver = d }
	h.open()
	if left := h.files(); len(left) != 2 || !strings.HasPrefix(left[0], v.ID) || !strings.HasPrefix(left[1], v.ID) {
		t.Errorf("got files %q, want those of machine %s", left, v.ID)
	}
	if c := h.vms.Capacity(); c.PromisedMiB != 512 || c.Pools != nil {
		t.Errorf("got %+v, want the memory of one machine promised", c)
	}
}

// An image is removed with the machines that wait. The pool says that it lacks the image, and is filled once that is there
// again. If no more machines can be prepared, those that wait go too.
func TestPoolWithoutItsImage(t *testing.T) {
	h, d := newPool(t, 2, nil)
	h.awaitPool(2)
	must(t, h.vms.Images().Remove(t.Context(), h.pulled().Checksum))
	if p := h.awaitPool(0); len(h.files()) > 0 || h.vms.Capacity().PromisedMiB != 0 {
		t.Errorf("got pool %+v and files %q, want nothing", p, h.files())
	}
	for !strings.Contains(h.awaitPool(0).Problem, "is not in the cache; POST /images gets it") {
		time.Sleep(5 * time.Millisecond)
	}
	h.pull()
	h.awaitPool(2)
	d.setFailure(&vm.Error{Code: vm.CodeHypervisor, Message: "its template is being made"})
	v := h.create(h.pooled())
	if p := h.awaitPool(0); !strings.Contains(p.Problem, "its template is being made") {
		t.Errorf("got %+v, want the reason", p)
	}
	h.wait(v.ID)
	for _, name := range h.files() { // a machine is taken from the list before it is removed
		if id := strings.TrimSuffix(name, ".json"); id != v.ID {
			eventually(t, func() bool { _, err := os.Stat(filepath.Join(h.dir, "vms", name)); return err != nil })
		}
	}
	if w := h.create(h.pooled()); d.hasLoaded(w.ID) || h.wait(w.ID).Phase != vm.Ready {
		t.Error("without machines that wait, a request got none of its own")
	}
	d.setFailure(nil)
	h.awaitPool(2)
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(hangTimeout); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen in time")
		}
	}
}

// Settings that no pool can have stop the daemon's start, and a hypervisor that prepares no machines says so.
func TestImpossiblePools(t *testing.T) {
	h := newHarness(t)
	h.open()
	sum := h.request().Image.Checksum
	whole := vm.PoolOptions{Checksum: sum, CPUs: 2, Memory: 512, Count: 1}
	change := func(f func(*vm.PoolOptions)) []vm.PoolOptions { o := whole; f(&o); return []vm.PoolOptions{o} }
	for name, test := range map[string]struct {
		pools []vm.PoolOptions
		want  string
	}{
		"processors": {change(func(o *vm.PoolOptions) { o.CPUs = 1 << 20 }), "cpus is 1048576; it must be from 1 to"},
		"memory":     {change(func(o *vm.PoolOptions) { o.Memory = 16 }), `memory is "16mib"; it must be at least 32mib`},
		"count":      {change(func(o *vm.PoolOptions) { o.Count = 1001 }), "count is 1001; it must be from 1 to 1000"},
		"checksum":   {change(func(o *vm.PoolOptions) { o.Checksum = "00" }), `"00" is no checksum`},
		"twice":      {[]vm.PoolOptions{whole, whole}, "cpus=2 memory=512mib; add up their counts"},
	} {
		_, err := vm.Open(vm.Options{
			Dir: filepath.Join(t.TempDir(), "vms"), Driver: h.driver, Hypervisor: "memory", Images: h.images, Callbacks: h.callbacks, Pools: test.pools,
		})
		if err == nil || !strings.Contains(err.Error(), "-pool "+test.pools[0].Checksum) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want the pool and %q", name, err, test.want)
		}
	}
	h.close()
	h.options = func(o *vm.Options) { o.Pools = []vm.PoolOptions{whole} }
	h.open()
	eventually(t, func() bool {
		return strings.Contains(h.awaitPool(0).Problem, "the hypervisor memory cannot start machines from memory; QEMU can (-driver qemu)")
	})
}

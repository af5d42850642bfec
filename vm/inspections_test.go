package vm_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"osx-builder/callback"
	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// slowMachines is a Manager, inside a bubble of testing/synctest, some of whose
// machines are slow.
type slowMachines struct {
	*vm.Manager
	driver *vmtest.Driver
	dir    string
	slow   []string // machines for which inspect is called
	well   []string

	inspect func(context.Context) error // of a slow machine

	mu    sync.Mutex
	calls map[string]int // running calls of inspect, by machine
	most  int            // the most at once, of one machine
	total int
}

// withSlow runs test in a bubble, with slow machines, for which inspect is called,
// and five that are well.
func withSlow(t *testing.T, slow int, inspect func(context.Context) error, test func(*testing.T, *slowMachines)) {
	t.Helper()
	h := newHarness(t).open()
	var ids []string
	for range slow + 5 {
		q := h.request()
		q.CallbackURL = ""
		ids = append(ids, h.wait(h.create(q).ID).ID)
	}
	h.close()
	synctest.Test(t, func(t *testing.T) {
		s := &slowMachines{dir: filepath.Join(h.dir, "vms"), slow: ids[:slow], well: ids[slow:], inspect: inspect, calls: map[string]int{}}
		s.driver = &vmtest.Driver{Hook: s.hook}
		images, err := image.Open(filepath.Join(h.dir, "images"), image.Options{})
		must(t, err)
		defer func() { must(t, images.Close()) }()
		callbacks := callback.New(callback.Options{})
		defer callbacks.Close()
		s.Manager, err = vm.Open(vm.Options{Dir: s.dir, Driver: s.driver, Hypervisor: "memory", Images: images, Callbacks: callbacks})
		must(t, err)
		defer s.Close()
		test(t, s)
	})
}

func (s *slowMachines) hook(ctx context.Context, step vmtest.Step, m vm.Machine) error {
	for _, id := range s.slow {
		if id == m.ID && step == vmtest.Inspect {
			s.count(id, 1)
			defer s.count(id, -1)
			return s.inspect(ctx)
		}
	}
	return nil
}

func (s *slowMachines) count(id string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[id] += n
	s.most = max(s.most, s.calls[id])
	s.total += n
}

func (s *slowMachines) setPower(t *testing.T, id string, p vm.Power) {
	t.Helper()
	must(t, s.driver.SetPower(vm.Machine{Dir: filepath.Join(s.dir, id)}, p))
}

// list checks that a list has each machine, and that those that are slow have an
// error.
func (s *slowMachines) list(t *testing.T) {
	t.Helper()
	start := time.Now()
	list, err := s.List(t.Context(), vm.Filter{}, everyone)
	must(t, err)
	if len(list) != len(s.slow)+len(s.well) {
		t.Errorf("got a list of %d machines, want %d", len(list), len(s.slow)+len(s.well))
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the list took %v, want 2 s at most", took)
	}
	slow := map[string]bool{}
	for _, id := range s.slow {
		slow[id] = true
	}
	for _, v := range list {
		switch {
		case v.Phase != vm.Ready || v.CreatedAt.IsZero() || v.Image.URL == "":
			t.Errorf("got %+v in the list, want what its record says", v)
		case slow[v.ID] && (v.Error == nil || v.Error.Code != vm.CodeOpen || v.Status != ""):
			t.Errorf("got error %v and status %q of a slow machine, want %s", v.Error, v.Status, vm.CodeOpen)
		case !slow[v.ID] && (v.Error != nil || v.Status != vm.PoweredOn):
			t.Errorf("got error %v and status %q of a machine that is well", v.Error, v.Status)
		}
	}
}

func hangs(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// If more machines hang than are inspected at once, a list and a count still have
// all others, and leave no goroutine.
func TestListWithHangingMachines(t *testing.T) {
	withSlow(t, 40, hangs, func(t *testing.T, s *slowMachines) {
		var lists sync.WaitGroup
		for range 10 {
			lists.Go(func() { s.list(t) })
			time.Sleep(300 * time.Millisecond)
		}
		lists.Wait()
		synctest.Wait()
		if s.most != 1 || s.total != 0 {
			t.Errorf("got %d inspections of one machine at once, and %d that still run; want 1 and none", s.most, s.total)
		}
		seen, err := s.StateCounts(t.Context())
		must(t, err)
		if well, slow := seen[vm.State{Phase: vm.Ready, Status: vm.PoweredOn}], seen[vm.State{Phase: vm.Ready, Status: vm.Unknown}]; well != 5 || slow != 40 {
			t.Errorf("got %v, want 5 that run and 40 of an unknown status", seen)
		}
	})
}

// A call that ignores its context is not repeated while it runs.
func TestListWithStuckCalls(t *testing.T) {
	stuck := make(chan struct{})
	started := 0
	withSlow(t, 1, func(context.Context) error {
		started++
		<-stuck
		return nil
	}, func(t *testing.T, s *slowMachines) {
		stuck = make(chan struct{}) // of the bubble
		for range 20 {
			s.list(t)
		}
		synctest.Wait()
		if started != 1 {
			t.Errorf("got %d calls of 20 lists, want one", started)
		}
		close(stuck)
		list, err := s.List(t.Context(), vm.Filter{Status: vm.PoweredOn}, everyone)
		must(t, err)
		if len(list) != 6 {
			t.Errorf("got %d machines that run once the call has ended, want 6", len(list))
		}
	})
}

// A list is never older than its request, even if an inspection from before still
// runs.
func TestListIsNotOlderThanItsRequest(t *testing.T) {
	withSlow(t, 1, func(ctx context.Context) error { return nil }, func(t *testing.T, s *slowMachines) {
		first, asked := make(chan struct{}), make(chan struct{})
		s.inspect = func(context.Context) error {
			s.inspect = func(context.Context) error { return nil }
			close(asked)
			<-first
			return errors.New("what it would have read is old by now")
		}
		var lists sync.WaitGroup
		lists.Go(func() { _, _ = s.List(t.Context(), vm.Filter{}, everyone) })
		<-asked
		lists.Go(func() {
			off, err := s.List(t.Context(), vm.Filter{Status: vm.PoweredOff}, everyone)
			if err != nil || len(off) != 1 {
				t.Errorf("got %d machines that are off (%v), want one", len(off), err)
			}
		})
		synctest.Wait()
		s.setPower(t, s.slow[0], vm.PoweredOff)
		close(first)
		lists.Wait()
	})
}

// Get waits for a slow machine. The events of others do not.
func TestSlowMachineIsWaitedFor(t *testing.T) {
	withSlow(t, 40, func(ctx context.Context) error {
		select {
		case <-time.After(8 * time.Second):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}, func(t *testing.T, s *slowMachines) {
		l, err := s.Listen("", everyone)
		must(t, err)
		defer l.Close()
		time.Sleep(1500 * time.Millisecond) // the slow ones are being inspected
		s.setPower(t, s.well[0], vm.PoweredOff)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		for {
			e, err := l.Next(ctx)
			must(t, err)
			if e.ID == s.well[0] && e.Status == vm.PoweredOff {
				break
			}
		}
		v, err := s.Get(t.Context(), s.slow[0])
		if err != nil || v.Status != vm.PoweredOn {
			t.Errorf("got status %q and error %v of a slow machine, want powered-on", v.Status, err)
		}
		s.setPower(t, s.well[0], vm.PoweredOn)
		s.list(t)
	})
}

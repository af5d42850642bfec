// The simulator of vCenter has data races of its own.
//go:build !race

package vsphere_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
	"osx-builder/vm/vmtest/vcenter"
	"osx-builder/vm/vsphere"
)

// step is one thing that the Manager asks of a driver.
type step struct {
	name string
	call func(context.Context) error
}

// steps make every call that the driver can make but CancelTask: a machine from the import of its image to its end.
func (b *bench) steps(d *vsphere.Driver, m vm.Machine) []step {
	power := func(a vm.Action) func(context.Context) error {
		return func(c context.Context) error { return d.Power(c, m, a) }
	}
	return []step{
		{"Ready", d.Ready},
		{"Clone", func(c context.Context) error { return d.Clone(c, m, b.gold()) }},
		{"Start", func(c context.Context) error { return d.Start(c, m) }},
		{"Inspect", func(c context.Context) error { _, err := d.Inspect(c, m); return err }},
		{"List", func(c context.Context) error { _, err := d.List(c, []vm.Machine{m}); return err }},
		{"Watch", func(c context.Context) error {
			watched, stop := context.WithCancel(c)
			defer stop()
			if err := d.Watch(watched, stop); watched.Err() == nil {
				return err
			}
			return nil // it has seen the machine
		}},
		{"Screenshot", func(c context.Context) error { _, err := d.Screenshot(c, m); return err }},
		{"Suspend", power(vm.ActionSuspend)},
		{"Resume", power(vm.ActionResume)},
		{"Reset", power(vm.ActionReset)},
		{"Shutdown", power(vm.ActionShutdown)},
		{"Off", power(vm.ActionOff)},
		{"KeptImages", func(c context.Context) error { _, err := d.KeptImages(c); return err }},
		{"Sweep", func(c context.Context) error { return d.Sweep(c, func(string) bool { return true }) }},
		{"Destroy", func(c context.Context) error { return d.Destroy(c, m) }},
		{"RemoveImage", func(c context.Context) error { return d.RemoveImage(c, image) }},
	}
}

// live opens a driver and takes the steps. After each error it lets the calls succeed and takes the step again, at most
// so many times. It returns the errors, and the one of a step that never succeeded.
func (b *bench) live(t *testing.T, tries int, change func(*vsphere.Options), well func()) (errs []error, last error) {
	o := b.options()
	if o.Cluster != "" {
		o.Folder = "builders-" + uuid.NewString() // so that it is made each time
	}
	change(&o)
	d, err := vsphere.Open(o)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	limited := ctx(t)
	for _, s := range b.steps(d, b.machine()) {
		for n := 1; ; n++ {
			err := s.call(limited)
			if err == nil {
				break
			}
			err = fmt.Errorf("%s: %w", s.name, err)
			if errs = append(errs, err); n == tries {
				return errs, err
			}
			well()
		}
	}
	return errs, nil
}

// modes are servers on which the driver does different things.
var modes = map[string]vcenter.Options{"vCenter": {PageSize: 1}, "ESXi": {ESX: true}, "ESXi that copies": {ESX: true, Copies: true}}

// ignored are the calls whose failure is no error of a step. Not every life makes them.
var ignored = []string{"CancelTask", "DestroyPropertyCollector", "HttpNfcLeaseAbort", "HttpNfcLeaseProgress", "Logout"}

// lifeCalls returns the methods that a life calls, with how often it does.
func (b *bench) lifeCalls(t *testing.T) map[string]int {
	t.Helper()
	if _, err := b.live(t, 1, func(*vsphere.Options) {}, nil); err != nil {
		t.Fatal(err)
	}
	calls, _ := b.server.Calls()
	return calls
}

// Whatever call or task fails, the error names the privilege that the call needs, the next try succeeds, and nothing is
// left in the end. A call of the driver that no life makes fails this test.
func TestEachCallFails(t *testing.T) {
	var mu sync.Mutex
	made := map[string]bool{"CancelTask": true} // TestSlowTasks makes it
	t.Run("modes", func(t *testing.T) {
		for name, o := range modes {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				calls, tasks := &failures{}, &failures{}
				o.Hook, o.TaskHook = calls.hook, tasks.hook
				b := newBench(t, o)
				all := b.lifeCalls(t)
				for method := range all {
					mu.Lock()
					made[method] = true
					mu.Unlock()
				}
				for _, method := range slices.Sorted(maps.Keys(all)) {
					if o.Copies && !strings.Contains("MakeDirectory CopyVirtualDisk_Task CreateVM_Task DeleteDatastoreFile_Task", method) {
						continue // as on the other ESXi
					}
					b.eachFails(t, calls, method)
					if strings.HasSuffix(method, "_Task") {
						b.eachFails(t, tasks, method)
					}
				}
				for _, method := range []string{"RetrievePropertiesEx", "ReconfigVM_Task"} {
					for part := 1; part < 4 && !o.Copies; part++ {
						calls.set(method, part*all[method]/4, &types.SystemError{Reason: "injected"})
						_, err := b.live(t, 2, func(*vsphere.Options) {}, func() {})
						b.checkEnd(t, method, err)
					}
				}
			})
		}
	})
	for _, method := range calledMethods(t) {
		if !made[method] {
			t.Errorf("the driver calls %s, but no step of a life does; add one, so that its failure is tested", method)
		}
	}
}

// eachFails lives while all calls of the method fail until a step has failed.
func (b *bench) eachFails(t *testing.T, f *failures, method string) {
	t.Helper()
	const privilege = "Some.Privilege"
	f.setAlways(method, &types.NoPermission{PrivilegeId: privilege})
	errs, err := b.live(t, 2, func(*vsphere.Options) {}, f.recover)
	if !slices.Contains(ignored, method) && (!f.happened() || len(errs) == 0) {
		t.Errorf("%s: no call failed, or no step did because of that", method)
	}
	for _, err := range errs {
		if e, ok := errors.AsType[*vm.Error](err); !ok || !strings.Contains(e.Message, privilege) || !strings.Contains(e.Message, vcenter.Username) {
			t.Errorf("%s failed: got %v, want an error for clients that names the user and the privilege", method, err)
		}
	}
	f.recover()
	b.checkEnd(t, method, err)
}

// checkEnd checks the end of a life: it was lived, and nothing is left.
func (b *bench) checkEnd(t *testing.T, method string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s failed: the next try failed too: %v", method, err)
	}
	left := b.server.Machines()
	for _, name := range b.server.Folders() {
		if strings.HasSuffix(name, "-disks") { // of copied disks, which the simulator does not remove with their machine
			left = append(left, "the folder "+name)
		}
	}
	if len(left) > 0 {
		t.Errorf("%s failed: %v is left", method, left)
	}
}

// calledMethods returns the methods of the API that the driver's source calls.
func calledMethods(t *testing.T) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(".")
	harness.Must(t, err)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, parser.SkipObjectResolution)
		harness.Must(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if s, ok := call.Fun.(*ast.SelectorExpr); ok {
					if pkg, ok := s.X.(*ast.Ident); ok && pkg.Name == "methods" {
						list = append(list, s.Sel.Name)
					}
				}
			}
			return true
		})
	}
	if len(list) < 20 {
		t.Fatalf("got only the calls %v", list)
	}
	return list
}

// Whatever call is not answered in time, the next try succeeds although the server executes the call late, and nothing
// is left in the end.
func TestEachCallHangs(t *testing.T) {
	t.Parallel()
	for name, o := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := newBench(t, o).lifeCalls(t)
			var wg sync.WaitGroup
			for method := range all {
				if slices.Contains(ignored, method) || o.ESX && !strings.HasSuffix(method, "_Task") {
					continue
				}
				calls := &failures{}
				o := o
				o.Hook = calls.hook
				b := newBench(t, o)
				wg.Go(func() { b.oneHangs(t, calls, method) })
			}
			wg.Wait()
		})
	}
}

// oneHangs lives while the first call of the method is answered only after the driver has given up.
func (b *bench) oneHangs(t *testing.T, calls *failures, method string) {
	calls.set(method, 0, nil)
	defer calls.recover() // a server whose call hangs cannot be closed
	short := func(o *vsphere.Options) {
		o.CallTimeout = time.Second
		o.Heartbeat = time.Hour // no step fails if it is a heartbeat that hangs
	}
	errs, err := b.live(t, 100, short, func() {
		if calls.happened() { // on a busy host other calls may take too long too, and before it
			calls.recover()
		}
	})
	if !calls.happened() {
		t.Errorf("%s: no call hung", method)
	}
	if len(errs) == 0 || !strings.Contains(errs[0].Error(), "has not answered") {
		t.Errorf("%s hung: got %v, want an error that says so", method, errs)
	}
	b.checkEnd(t, method, err)
}

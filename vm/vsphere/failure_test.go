// The simulator of vCenter has data races of its own.
//go:build !race

package vsphere_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
	"osx-builder/vm/vmtest/vcenter"
)

// selfSigned returns a certificate that no server has.
func selfSigned(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	harness.Must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	harness.Must(t, err)
	return der
}

// Faults that a client can do something about have their own codes, and say what.
func TestFaults(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		fault types.BaseMethodFault
		code  vm.Code
		says  string
	}{
		"no permission": {&types.NoPermission{PrivilegeId: "VirtualMachine.Provisioning.Clone"}, vm.CodeHypervisor, "VirtualMachine.Provisioning.Clone"},
		"a full disk":   {&types.NoDiskSpace{Datastore: "LocalDS_0"}, vm.CodeDiskFull, `"LocalDS_0" is full`},
		"no resources":  {&types.InsufficientMemoryResourcesFault{}, vm.CodeNoCapacity, "no host has enough resources"},
		"another fault": {&types.SystemError{Reason: "x"}, vm.CodeHypervisor, "SystemError"},
	}
	calls, tasks := &failures{}, &failures{}
	b := newBench(t, vcenter.Options{Hook: calls.hook, TaskHook: tasks.hook})
	d := b.open(t)
	for name, tc := range tests {
		for kind, f := range map[string]*failures{"call": calls, "task": tasks} {
			t.Run(name+" of a "+kind, func(t *testing.T) {
				m := b.machine()
				f.set("CloneVM_Task", 0, tc.fault)
				err := d.Clone(ctx(t), m, b.gold())
				e, ok := errors.AsType[*vm.Error](err)
				if !ok || e.Code != tc.code || !strings.Contains(e.Message, tc.says) {
					t.Errorf("got %v, want code %s with %q", err, tc.code, tc.says)
				}
				harness.Must(t, d.Destroy(ctx(t), m))
			})
		}
	}
	err := d.Network(vm.Bridged)
	if e, ok := errors.AsType[*vm.Error](err); !ok || e.Code != vm.CodeNetworkUnavailable || !strings.Contains(e.Message, "-vsphere-network bridged=NAME") {
		t.Errorf("a network without a port group: got %v", err)
	}
}

// Two daemons that import one image at once make one template, and neither removes the other's.
func TestTwoImports(t *testing.T) {
	t.Parallel()
	var imports atomic.Int32
	b := newBench(t, vcenter.Options{Hook: func(method string) types.BaseMethodFault {
		if method == "HttpNfcLeaseComplete" {
			imports.Add(1)
		}
		return nil
	}})
	benches := []*bench{b, newBenchOn(t, b.server), newBenchOn(t, b.server)}
	var wg sync.WaitGroup
	for i, one := range benches {
		d := one.open(t)
		wg.Go(func() {
			m := one.machine()
			if err := d.Clone(ctx(t), m, one.gold()); err != nil {
				t.Errorf("daemon %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if len(b.templates()) != 1 || len(b.machines()) != len(benches) || imports.Load() != 1 {
		t.Errorf("got templates %v, machines %v after %d imports, want one template, %d machines, one import", b.templates(), b.machines(), imports.Load(), len(benches))
	}
}

// An import that died is replaced, by its own daemon at once and by another one once its heartbeat stands still.
func TestDeadImport(t *testing.T) {
	t.Parallel()
	for name, same := range map[string]bool{"its own daemon": true, "another daemon": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := &failures{}
			b := newBench(t, vcenter.Options{Hook: calls.hook})
			b.leaveImport(t, calls)
			next := b
			if !same {
				next = newBenchOn(t, b.server)
			}
			m := next.machine()
			harness.Must(t, next.open(t).Clone(ctx(t), m, next.gold()))
			if got := b.templates(); len(got) != 1 {
				t.Errorf("got templates %v, want one", got)
			}
		})
	}
}

// leaveImport leaves a template that is not whole, as a daemon that is killed does.
func (b *bench) leaveImport(t *testing.T, calls *failures) {
	t.Helper()
	d := b.open(t)
	harness.Must(t, d.Ready(ctx(t)))
	dead := &types.SystemError{Reason: "the daemon is dead"}
	gone := make(map[string]bool)
	b.serverHook(calls, func(method string) types.BaseMethodFault {
		if method == "CreateSnapshot_Task" {
			gone["dead"] = true
		}
		if gone["dead"] {
			return dead
		}
		return nil
	})
	if err := d.Clone(ctx(t), b.machine(), b.gold()); err == nil {
		t.Fatal("the import did not die")
	}
	b.serverHook(calls, nil)
	if got := b.templates(); len(got) != 1 {
		t.Fatalf("got templates %v, want what the dead import left", got)
	}
}

// Sweep removes this data folder's machines that have no record. Others stay: those of another owner, renamed ones, and
// foreign ones.
func TestSweep(t *testing.T) {
	t.Parallel()
	b := newBench(t, vcenter.Options{})
	d := b.open(t)
	other := newBenchOn(t, b.server)
	machines := b.cloneMany(t, d, 3)
	theirs := other.cloneMany(t, other.open(t), 1)[0]
	known, unknown, renamed := machines[0], machines[1], machines[2]
	for _, m := range machines {
		harness.Must(t, removeFolder(m))
	}
	b.rename(t, renamed, "osxb-"+theirs.ID+"x")
	harness.Must(t, d.Sweep(ctx(t), func(id string) bool { return id == known.ID }))
	got := b.machines()
	slices.Sort(got)
	want := []string{"osxb-" + known.ID, "osxb-" + theirs.ID, "osxb-" + theirs.ID + "x"}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v without %s", got, want, unknown.ID)
	}
}

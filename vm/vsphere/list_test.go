// The simulator of vCenter has data races of its own.
//go:build !race

package vsphere_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
	"golang.org/x/sync/errgroup"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
	"osx-builder/vm/vmtest/vcenter"
	"osx-builder/vm/vsphere"
)

// cloneMany makes n machines and starts those with an even number.
func (b *bench) cloneMany(t testing.TB, d *vsphere.Driver, n int) []vm.Machine {
	t.Helper()
	machines := make([]vm.Machine, n)
	machines[0] = b.machine()
	harness.Must(t, d.Clone(ctx(t), machines[0], b.gold())) // imports the image
	var group errgroup.Group
	group.SetLimit(16)
	for i := range machines {
		if i > 0 {
			machines[i] = b.machine()
		}
		group.Go(func() error {
			err := d.Clone(ctx(t), machines[i], b.gold())
			if err == nil && i%2 == 0 {
				err = d.Start(ctx(t), machines[i])
			}
			return err
		})
	}
	harness.Must(t, group.Wait())
	return machines
}

// A list of 1,000 machines takes at most five calls, and its statuses equal those of Inspect, which takes one call for a
// machine that the list has found.
func TestList(t *testing.T) {
	t.Parallel()
	const count = 1000
	b := newBench(t, vcenter.Options{})
	machines := b.duplicate(b.cloneMany(t, b.open(t), 1)[0], count-1)
	d := b.open(t) // which knows no machine yet
	harness.Must(t, d.Ready(ctx(t)))
	_, before := b.server.Calls()
	began := time.Now()
	statuses, err := d.List(ctx(t), machines)
	harness.Must(t, err)
	_, after := b.server.Calls()
	t.Logf("a list of %d: %d calls, %v", count, after-before, time.Since(began))
	if calls := after - before; len(statuses) != count || calls > 5 {
		t.Errorf("got %d statuses with %d calls, want %d with at most 5", len(statuses), calls, count)
	}
	_, before = b.server.Calls()
	for _, m := range machines {
		st, err := d.Inspect(ctx(t), m)
		harness.Must(t, err)
		if diff := cmp.Diff(st, statuses[m.ID]); diff != "" || st.Power == "" {
			t.Fatalf("machine %s: Inspect and List differ (-Inspect +List):\n%s", m.ID, diff)
		}
	}
	if _, after = b.server.Calls(); after-before != count {
		t.Errorf("got %d calls for %d inspections, want one for each", after-before, count)
	}
}

// duplicate adds n machines like m to the server, every other one powered off, and returns them after m.
func (b *bench) duplicate(m vm.Machine, n int) []vm.Machine {
	b.t.Helper()
	machines := []vm.Machine{m}
	harness.Must(b.t, b.server.Duplicate("osxb-"+m.ID, n, func(i int, v *mo.VirtualMachine) {
		twin := b.machine()
		machines = append(machines, twin)
		v.Name, v.Config.InstanceUuid = "osxb-"+twin.ID, twin.ID
		if i%2 == 0 {
			v.Runtime.PowerState = types.VirtualMachinePowerStatePoweredOff
		}
		for _, o := range v.Config.ExtraConfig {
			if o := o.GetOptionValue(); o.Key == "osxb.id" {
				o.Value = twin.ID
			}
		}
	}))
	return machines
}

// BenchmarkClone clones, and starts every other machine.
func BenchmarkClone(b *testing.B) {
	bench := newBench(b, vcenter.Options{})
	d := bench.open(b)
	bench.cloneMany(b, d, 1)
	for b.Loop() {
		_, before := bench.server.Calls()
		began := time.Now()
		const count = 100
		bench.cloneMany(b, d, count)
		_, after := bench.server.Calls()
		b.ReportMetric(count/time.Since(began).Minutes(), "clones/min")
		b.ReportMetric(float64(after-before)/count, "calls/clone")
	}
}

// A machine that somebody renamed is still found, with its status, and a foreign machine is none of ours.
func TestListAfterChanges(t *testing.T) {
	t.Parallel()
	b := newBench(t, vcenter.Options{})
	d := b.open(t)
	machines := b.cloneMany(t, d, 2)
	other := newBenchOn(t, b.server)
	theirs := other.cloneMany(t, other.open(t), 1)
	b.server.Change("osxb-"+machines[0].ID, func(v *mo.VirtualMachine) { v.Name = "renamed" })
	statuses, err := d.List(ctx(t), append(machines, theirs...))
	harness.Must(t, err)
	if len(statuses) != 2 || statuses[machines[0].ID].Power != vm.PoweredOn {
		t.Errorf("got %v, want our two machines", statuses)
	}
	if st, err := b.open(t).Inspect(ctx(t), machines[0]); err != nil || st.Power != vm.PoweredOn {
		t.Errorf("Inspect of the renamed machine: got %q, %v", st.Power, err)
	}
	if len(b.templates()) != 1 {
		t.Errorf("got templates %v, want one for both data folders", b.templates())
	}
}

// A question that waits for an answer makes a machine blocked; addresses of its own link are left out.
func TestStatus(t *testing.T) {
	t.Parallel()
	b := newBench(t, vcenter.Options{})
	d := b.open(t)
	m := b.cloneMany(t, d, 1)[0]
	st, err := d.Inspect(ctx(t), m)
	harness.Must(t, err)
	if len(st.Addresses) != 1 || st.Addresses[0] != st.IP || st.Tools != vm.ToolsRunning || !st.Up {
		t.Errorf("got %+v, want one address, which is not fe80::1, and tools", st)
	}
	if len(st.NICs) != 1 || st.NICs[0].Model != "vmxnet3" || st.NICs[0].NetworkType != vm.NAT || st.NICs[0].IPAddress != st.IP || st.NICs[0].MACAddress != st.MAC {
		t.Errorf("got NICs %+v, want a vmxnet3 on nat with %s", st.NICs, st.IP)
	}
	b.server.Change("osxb-"+m.ID, func(v *mo.VirtualMachine) {
		v.Runtime.Question = &types.VirtualMachineQuestionInfo{Text: "Did you move it or copy it?"}
	})
	if st, err = d.Inspect(ctx(t), m); err != nil || st.Power != vm.Blocked {
		t.Errorf("with a question: got %q, %v, want %q", st.Power, err, vm.Blocked)
	}
}

// Watch reports a change of a machine's power.
func TestWatch(t *testing.T) {
	t.Parallel()
	b := newBench(t, vcenter.Options{})
	d := b.open(t)
	m := b.cloneMany(t, d, 1)[0]
	watched, stop := context.WithCancel(ctx(t))
	changes := make(chan struct{}, 100)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.Watch(watched, func() { changes <- struct{}{} }); !errors.Is(err, context.Canceled) {
			t.Errorf("Watch: got %v, want %v", err, context.Canceled)
		}
	})
	<-changes // the first call has all machines
	harness.Must(t, d.Power(ctx(t), m, vm.ActionOff))
	<-changes
	stop()
	wg.Wait()
}

package e2e_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"osx-builder/api"
	"osx-builder/callback"
	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/harness"
)

const (
	// fewMachines and manyMachines are the numbers of machines that BenchmarkScale compares.
	fewMachines  = 1000
	manyMachines = 5000

	// maxGrowth is how many times longer something may take with manyMachines: linear growth, and what a busy host
	// adds. Quadratic growth is 25 times.
	maxGrowth = 2.0 * manyMachines / fewMachines

	// expired is how many of the machines expire.
	expired = 100
)

// BenchmarkScale measures what must not grow worse than the number of machines: the start, a list, a scrape of the
// metrics, an event, a look at every machine by a driver that cannot list them, and the end of some lifetimes.
func BenchmarkScale(b *testing.B) {
	for b.Loop() {
		few, many := measureScale(b, fewMachines), measureScale(b, manyMachines)
		for name, took := range many {
			growth := float64(took) / float64(few[name])
			b.ReportMetric(float64(few[name].Microseconds())/1000, name+"-1000-ms")
			b.ReportMetric(float64(took.Microseconds())/1000, name+"-5000-ms")
			if growth > maxGrowth {
				b.Errorf("%s takes %v with %d machines, and %.1f times as long with %d, want at most %.1f times", name, few[name], fewMachines, growth, manyMachines, maxGrowth)
			}
		}
		if many["start"] > maxStartTime {
			b.Errorf("the start with %d records took %v, want at most %v", manyMachines, many["start"], maxStartTime)
		}
	}
}

// listDriver is a driver on other hosts: it lists its machines and reports changes.
type listDriver struct {
	*vmtest.Driver
	hints chan struct{}
}

// List implements [vm.Lister].
func (d *listDriver) List(ctx context.Context, machines []vm.Machine) (map[string]vm.Status, error) {
	statuses := make(map[string]vm.Status, len(machines))
	for _, m := range machines {
		st, err := d.Inspect(ctx, m)
		if err != nil {
			return nil, err
		}
		statuses[m.ID] = st
	}
	return statuses, nil
}

// Watch implements [vm.Watcher].
func (d *listDriver) Watch(ctx context.Context, changed func()) error {
	for {
		select {
		case <-d.hints:
			changed()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// measureScale returns how long things take with so many machines.
func measureScale(b *testing.B, count int) map[string]time.Duration {
	b.Helper()
	data := b.TempDir()
	images, err := image.Open(filepath.Join(data, "images"), image.Options{})
	harness.Must(b, err)
	sender := callback.New(callback.Options{})
	defer func() { harness.Must(b, images.Close()) }()
	defer sender.Close()
	dir := filepath.Join(data, "vms")
	id := writeRecords(b, dir, count)
	open := func(d vm.Driver) *vm.Manager {
		m, err := vm.Open(vm.Options{Dir: dir, Driver: d, Hypervisor: "memory", Images: images, Callbacks: sender})
		harness.Must(b, err)
		return m
	}
	took := make(map[string]time.Duration)
	var start []time.Duration
	for range 3 {
		start = append(start, harness.Measure(func() { open(&vmtest.Driver{}).Close() }))
	}
	took["start"] = harness.Median(start)

	listing := &listDriver{Driver: &vmtest.Driver{}, hints: make(chan struct{})}
	vms := open(listing)
	url, stop := serveAPI(b, data, vms, api.NewMetrics("bench"))
	for name, path := range map[string]string{"list": "/vms", "metrics": "/metrics"} {
		var times []time.Duration
		for range 5 {
			times = append(times, harness.Measure(func() { get(b, url+path) }))
		}
		took[name] = harness.Median(times)
	}
	took["event"] = measureEvent(b, vms, listing, vm.Machine{ID: id, Dir: filepath.Join(dir, id)})
	stop()
	vms.Close()
	took["look"] = measureLook(b, open, count)
	expireSome(b, dir)
	vms = open(&vmtest.Driver{})
	took["expiry"] = harness.Measure(func() {
		for vms.Health(context.Background()).Machines > count-expired {
			time.Sleep(time.Millisecond)
		}
	})
	vms.Close()
	return took
}

// measureEvent measures the time from a change that the driver reports to its event.
func measureEvent(b *testing.B, vms *vm.Manager, d *listDriver, m vm.Machine) time.Duration {
	b.Helper()
	events, err := vms.Listen("", vm.Owners{All: true})
	harness.Must(b, err)
	defer events.Close()
	next := func(p vm.Power) {
		for {
			e, err := events.Next(context.Background())
			harness.Must(b, err)
			if e.ID == m.ID && e.Status == p {
				return
			}
		}
	}
	next(vm.PoweredOn)
	var times []time.Duration
	for _, p := range []vm.Power{vm.PoweredOff, vm.PoweredOn, vm.PoweredOff} {
		time.Sleep(1200 * time.Millisecond) // a list follows a hint at once, but not two in one second
		harness.Must(b, d.SetPower(m, p))
		times = append(times, harness.Measure(func() {
			d.hints <- struct{}{}
			next(p)
		}))
	}
	return harness.Median(times)
}

// measureLook measures how long it takes to look at each machine for the events.
func measureLook(b *testing.B, open func(vm.Driver) *vm.Manager, count int) time.Duration {
	b.Helper()
	looked, done := atomic.Int64{}, make(chan struct{})
	vms := open(&vmtest.Driver{Hook: func(_ context.Context, s vmtest.Step, _ vm.Machine) error {
		if s == vmtest.Inspect && looked.Add(1) == int64(count) {
			close(done)
		}
		return nil
	}})
	defer vms.Close()
	return harness.Measure(func() {
		events, err := vms.Listen("", vm.Owners{All: true})
		harness.Must(b, err)
		defer events.Close()
		<-done
	})
}

// expireSome makes some records' lifetimes end now.
func expireSome(b *testing.B, dir string) {
	b.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	harness.Must(b, err)
	for _, path := range paths[:expired] {
		text, err := os.ReadFile(path)
		harness.Must(b, err)
		var record map[string]any
		harness.Must(b, json.Unmarshal(text, &record))
		record["expiry"] = map[string]any{"at": time.Now().UTC(), "seconds": 60}
		text, err = json.Marshal(record)
		harness.Must(b, err)
		harness.Must(b, os.WriteFile(path, text, 0o600))
	}
}

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

const (
	// startCount is how many starts one after the other are measured.
	startCount = 20

	// realStartCount is startCount for a real distribution.
	realStartCount = 5

	// mostAtOnce is how many starts at once are measured at most.
	mostAtOnce = 25

	// poolCount is how many machines wait in a small pool.
	poolCount = 4

	// lookPause is the time between two requests for the state of a machine that starts.
	lookPause = 5 * time.Millisecond
)

// BenchmarkMemoryStart measures how long a creation takes from the POST until the machine is powered on, until it
// accepts a TCP connection at its address, and until its page answers: if it boots, if it starts from memory, and if
// it comes from a pool in which few or many machines wait. The baselines are guests that a shell script starts on a
// bridge of its own: one that boots, one that continues a guest that was saved by hand, and one that was loaded before
// and only continues.
func BenchmarkMemoryStart(b *testing.B) {
	page := service{port: "80", question: "GET / HTTP/1.0\r\n\r\n", answer: "boot_id:"}
	s := newStarts(b, harness.TinyVM, page, 256, 2)
	atOnce := []int{10, mostAtOnce}
	s.measure("boot", startCount, atOnce...)
	s.measure("memory", startCount, atOnce...)
	s.restartWithPool(poolCount)
	s.measure("pool", startCount)
	s.restartWithPool(mostAtOnce)
	s.measure(fmt.Sprint("pool-of-", mostAtOnce), startCount, atOnce...)
}

// BenchmarkRealStart is [BenchmarkMemoryStart] for a Debian, and instead of a page it asks for the greeting of the SSH
// server. It runs only with REAL=all, because a boot takes minutes.
func BenchmarkRealStart(b *testing.B) {
	if os.Getenv("REAL") != "all" {
		return
	}
	s := newStarts(b, "debian-pvscsi.tar.gz", service{port: "22", answer: "SSH-2.0-"}, 512, 1)
	s.measure("boot", 1)
	s.measure("memory", realStartCount)
	s.restartWithPool(1)
	s.measure("pool", realStartCount)
}

// starts measures how machines of the daemon start.
type starts struct {
	*benchmark
	service service
	fields  map[string]any // of requests
	manual  *manualGuest
}

// newStarts returns a daemon that has a template of the image, and a guest that was saved by hand.
func newStarts(b *testing.B, file string, answers service, mib, cpus int) *starts {
	b.Helper()
	if os.Geteuid() != 0 {
		harness.Without(b, "a managed bridge needs root")
	}
	s := &starts{
		benchmark: openBenchmark(b, file, "-network", "bridge", "-creations", fmt.Sprint(mostAtOnce), "-template-memory", "1gib"), service: answers,
		fields: map[string]any{"cpus": cpus, "memory": fmt.Sprintf("%dmib", mib), "tools_init_timeout": "20m"},
	}
	first := s.post(vm.StartMemory)
	s.await(first.ID, 1, func(v vm.VM) bool { return v.Status == vm.PoweredOn })
	boots := s.commandLine(first.ID)
	s.destroy(first.ID) // its template is being made now
	s.awaitTemplate()
	clone := s.post(vm.StartMemory)
	s.await(clone.ID, 1, func(v vm.VM) bool { return v.Status == vm.PoweredOn })
	s.manual = newManualGuest(b, answers, int64(mib)<<20, s.Data, boots, s.commandLine(clone.ID))
	s.destroy(clone.ID)
	s.manual.save()
	return s
}

// measure runs a benchmark of one kind of start.
func (s *starts) measure(kind string, count int, atOnce ...int) {
	all := s.b
	all.Run(kind, func(b *testing.B) {
		s.b, s.manual.b = b, b
		defer func() { s.b, s.manual.b = all, all }()
		s.of(kind).report(b, count, atOnce...)
	})
}

// of returns what is compared.
func (s *starts) of(kind string) comparison {
	switch kind {
	case "boot":
		return comparison{starter{func(int) {}, s.creation(vm.StartBoot)}, s.manual.boots()}
	case "memory":
		return comparison{starter{func(int) {}, s.creation(vm.StartMemory)}, s.manual.loads()}
	default:
		return comparison{starter{func(int) { s.awaitPool() }, s.creation(vm.StartMemory)}, s.manual.continues()}
	}
}

func (s *starts) post(mode vm.StartMode) vm.VM {
	s.b.Helper()
	fields := map[string]any{"start": mode}
	for name, value := range s.fields {
		fields[name] = value
	}
	v, _, err := s.VM("POST", "/vms", s.image.Body(fields), http.StatusAccepted)
	harness.Must(s.b, err)
	return v
}

// await waits until done returns true. If n machines start at once, it asks less often, so that the
// requests for all of them take no more of the host.
func (s *starts) await(id string, n int, done func(vm.VM) bool) (v vm.VM) {
	s.b.Helper()
	return s.waitUntil(id, func(v vm.VM) bool {
		if done(v) {
			return true
		}
		time.Sleep(time.Duration(n) * lookPause)
		return false
	})
}

// creation returns a function that measures a creation.
func (s *starts) creation(mode vm.StartMode) func(i, n int) (startTimes, func()) {
	return func(_, n int) (t startTimes, end func()) {
		s.b.Helper()
		began := time.Now()
		v := s.post(mode)
		v = s.await(v.ID, n, func(v vm.VM) bool { return v.Status == vm.PoweredOn })
		t.on = time.Since(began)
		if v.IPAddress == "" {
			v = s.await(v.ID, n, func(v vm.VM) bool { return v.IPAddress != "" })
		}
		t.tcp, t.page = s.service.await(s.b, began, "", v.IPAddress, n)
		if (v.Start == vm.StartMemory) != (mode == vm.StartMemory) {
			s.b.Fatalf("got %+v, want a machine that starts by %s", v, mode)
		}
		return t, func() { s.destroy(v.ID) }
	}
}

func (s *starts) awaitTemplate() {
	s.b.Helper()
	var list struct{ Templates []vm.Template }
	s.look("a template", "/templates", &list, func() bool { return len(list.Templates) > 0 })
}

// restartWithPool restarts the daemon, which then keeps so many machines prepared.
func (s *starts) restartWithPool(count int) {
	s.b.Helper()
	harness.Must(s.b, s.Stop())
	if i := slices.Index(s.args, "-pool"); i >= 0 {
		s.args = s.args[:i] // the pool before
	}
	s.args = append(s.args, "-pool", fmt.Sprintf("%s cpus=%v memory=%s count=%d", s.image.SHA256, s.fields["cpus"], s.fields["memory"], count))
	s.start()
}

// awaitPool waits until the pool is full.
func (s *starts) awaitPool() {
	s.b.Helper()
	var health struct {
		Limits struct{ Pools []vm.Pool }
	}
	s.look("a full pool", "/healthz?verbose=1", &health, func() bool {
		return len(health.Limits.Pools) == 1 && health.Limits.Pools[0].Ready == health.Limits.Pools[0].Count
	})
}

// look reads a document until done returns true.
func (s *starts) look(what, path string, document any, done func() bool) {
	s.b.Helper()
	for end := time.Now().Add(4 * harness.Timeout); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		a, err := s.Do("GET", path, "", nil)
		harness.Must(s.b, err)
		harness.Must(s.b, a.JSON(document))
		if done() {
			return
		}
	}
	s.b.Fatalf("there is not %s: %+v", what, document)
}

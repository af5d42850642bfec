package qemu_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"osx-builder/callback"
	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/qemu"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/harness"
)

// managed is a vm.Manager with this driver, an image to make machines of and a
// receiver of their callbacks.
type managed struct {
	*vm.Manager
	r      *testDriver
	driver vm.Driver
	sum    string
	web    *httptest.Server
	posted chan vm.VM
	close  func()
}

// newManaged makes the image of code. driver is what the Manager gets.
func newManaged(r *testDriver, driver vm.Driver, code []byte) *managed {
	r.t.Helper()
	vmx := r.image(code, plain...)
	archive := filepath.Join(r.data, "image.tar.gz")
	r.run("tar", "-czf", archive, "-C", filepath.Dir(filepath.Dir(vmx)), filepath.Base(filepath.Dir(vmx)))
	bytes, err := os.ReadFile(archive)
	if err != nil {
		r.t.Fatal(err)
	}
	sum := sha256.Sum256(bytes)
	g := &managed{r: r, driver: driver, sum: hex.EncodeToString(sum[:]), posted: make(chan vm.VM, 100)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /image.tar.gz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes) })
	mux.HandleFunc("POST /callback", func(_ http.ResponseWriter, q *http.Request) {
		var v vm.VM
		if err := json.NewDecoder(q.Body).Decode(&v); err != nil {
			r.t.Errorf("callback's body: %v", err)
		}
		g.posted <- v
	})
	g.web = httptest.NewServer(mux)
	r.t.Cleanup(g.web.Close)
	g.open()
	r.t.Cleanup(func() {
		defer g.close()
		all, err := g.List(context.Background(), vm.Filter{}, vm.Owners{All: true})
		if err != nil {
			r.t.Error(err)
		}
		for _, v := range all {
			if err := g.Destroy(context.Background(), v.ID); err != nil {
				r.t.Errorf("destroying what the test left: %v", err)
			}
		}
	})
	return g
}

func (g *managed) open() {
	g.r.t.Helper()
	log := slog.New(slog.NewTextHandler(g.r.t.Output(), nil))
	images, err := image.Open(filepath.Join(g.r.data, "images"), image.Options{Log: log})
	if err != nil {
		g.r.t.Fatal(err)
	}
	callbacks := callback.New(callback.Options{})
	g.Manager, err = vm.Open(vm.Options{
		Dir: filepath.Join(g.r.data, "vms"), Driver: g.driver, Hypervisor: "qemu",
		Images: images, Callbacks: callbacks, Creations: 50, Log: log,
	})
	if err != nil {
		g.r.t.Fatal(err)
	}
	g.close = func() {
		g.Manager.Close()
		callbacks.Close()
		if err := images.Close(); err != nil {
			g.r.t.Error(err)
		}
	}
}

func (g *managed) create() vm.VM {
	g.r.t.Helper()
	v, err := g.Create(g.r.t.Context(), vm.Request{
		Image:       vm.Image{URL: g.web.URL + "/image.tar.gz", Checksum: g.sum, ChecksumType: "sha256"},
		Memory:      "64mib",
		CallbackURL: g.web.URL + "/callback",

		ToolsInitTimeout: vm.Timeout(harness.Timeout), // on a busy host
	}, "")
	if err != nil {
		g.r.t.Fatal(err)
	}
	return v
}

// settled takes n callbacks and returns them by machine.
func (g *managed) settled(n int) map[string]vm.VM {
	g.r.t.Helper()
	all := map[string]vm.VM{}
	for range n {
		select {
		case v := <-g.posted:
			if _, twice := all[v.ID]; twice {
				g.r.t.Errorf("got a second callback of %s: %+v", v.ID, v)
			}
			all[v.ID] = v
		case <-time.After(harness.Timeout):
			g.r.t.Fatalf("got %d callbacks within %v, want %d", len(all), harness.Timeout, n)
		}
	}
	return all
}

func (g *managed) get(id string) vm.VM {
	g.r.t.Helper()
	v, err := g.Get(g.r.t.Context(), id)
	if err != nil {
		g.r.t.Fatal(err)
	}
	return v
}

func (g *managed) machine(id string) vm.Machine {
	return vm.Machine{ID: id, Dir: filepath.Join(g.r.data, "vms", id)}
}

// mortal is a driver whose machines are killed as each is told to be. A guest
// gives a sign of life as soon as its machine has been started for the time that
// is meant to succeed.
type mortal struct {
	*qemu.Driver
	t     *testing.T
	kills func(life int) bool        // whether the machine's life of that number is cut off
	death func(n int, d *death) bool // sets how the n-th machine dies

	mu     sync.Mutex
	deaths map[string]*death // by machine
}

// death is when and how a machine is killed.
type death struct {
	after  time.Duration // since it has a process
	looks  int           // or at this Inspect, counted from 1; 0 for after
	signal syscall.Signal
	all    bool // its whole process group

	life, seen int
}

func (d *mortal) of(m vm.Machine) *death {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deaths[m.ID] == nil {
		mine := &death{}
		d.death(len(d.deaths), mine)
		d.deaths[m.ID] = mine
	}
	return d.deaths[m.ID]
}

func (d *mortal) Start(ctx context.Context, m vm.Machine) error {
	mine := d.of(m)
	mine.life++
	mine.seen = 0
	if !d.kills(mine.life) || mine.looks > 0 {
		return d.Driver.Start(ctx, m)
	}
	before := processIn(m)
	var killer sync.WaitGroup
	killer.Go(func() {
		until(d.t, harness.Timeout, "a process", func() bool {
			pid := processIn(m)
			return pid != 0 && pid != before
		})
		time.Sleep(mine.after)
		// A QEMU whose port another took meanwhile ends, and Start runs another.
		until(d.t, harness.Timeout, "a process to kill", func() bool {
			pid := processIn(m)
			return pid != before && mine.kill(pid) == nil
		})
	})
	err := d.Driver.Start(ctx, m)
	killer.Wait()
	return err
}

func (d *mortal) Inspect(ctx context.Context, m vm.Machine) (vm.Status, error) {
	mine := d.of(m)
	mine.seen++
	if d.kills(mine.life) && mine.seen == mine.looks {
		if err := mine.kill(processIn(m)); err != nil {
			d.t.Errorf("killing QEMU: %v", err)
		}
	}
	st, err := d.Driver.Inspect(ctx, m)
	if err == nil && mine.life > 0 && !d.kills(mine.life) && st.Power == vm.PoweredOn {
		st.Up, st.IP = true, "127.0.0.1"
	}
	return st, err
}

// kill returns ESRCH if there is no such process.
func (d *death) kill(pid int) error {
	if pid == 0 { // which would be every process of the test's own group
		return syscall.ESRCH
	}
	if !d.all {
		return syscall.Kill(pid, d.signal)
	}
	group, err := syscall.Getpgid(pid)
	if err != nil {
		return err
	}
	return syscall.Kill(-group, d.signal)
}

// processIn returns the number in the machine's pid file, 0 if there is none yet.
func processIn(m vm.Machine) int {
	text, _ := os.ReadFile(filepath.Join(m.Dir, "pid"))
	var pid int
	_, _ = fmt.Sscan(string(text), &pid)
	return pid
}

// moments are thirty ways to die while a machine is made.
func moments(n int, d *death) bool {
	d.signal = []syscall.Signal{syscall.SIGSEGV, syscall.SIGKILL, syscall.SIGTERM}[n%3]
	if n%5 == 4 {
		d.signal, d.all = syscall.SIGKILL, true
	}
	if n < 20 {
		d.after = time.Duration(n*n) * time.Millisecond / 4
	} else {
		d.looks = 1 + (n-20)/3
	}
	return true
}

// A machine that is killed while it is made becomes ready all the same, at
// whatever moment it was: once, with one process and one callback.
func TestDeathsWhileCreating(t *testing.T) {
	t.Parallel()
	const machines = 30
	r := newTestDriver(t)
	g := newManaged(r, &mortal{Driver: r.Driver, t: t, deaths: map[string]*death{}, death: moments, kills: func(life int) bool { return life == 1 }}, idleGuest)
	var ids []string
	for range machines {
		ids = append(ids, g.create().ID)
	}
	posted := g.settled(machines)
	for _, id := range ids {
		if v := posted[id]; v.Phase != vm.Ready || v.Status != vm.PoweredOn || v.Error != nil {
			t.Errorf("got callback %+v, want ready and powered-on", v)
		}
		if v := g.get(id); v.Phase != vm.Ready || v.Status != vm.PoweredOn || v.StoppedBecause != "" {
			t.Errorf("got %+v, want ready and powered-on", v)
		}
		if n := processes(t, g.machine(id)); n != 1 {
			t.Errorf("got %d processes, want one", n)
		}
	}
	if len(g.posted) > 0 {
		t.Errorf("got another callback: %+v", <-g.posted)
	}
}

// A machine that dies twice fails, and the error says how.
func TestSecondDeath(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	g := newManaged(r, &mortal{Driver: r.Driver, t: t, deaths: map[string]*death{}, kills: func(int) bool { return true }, death: func(n int, d *death) bool {
		d.signal, d.looks = syscall.SIGSEGV, n
		return true
	}}, idleGuest)
	for range 3 {
		g.create()
	}
	for id, v := range g.settled(3) {
		if v.Phase != vm.Failed || v.Error == nil || v.Error.Code != vm.CodeHypervisor || !strings.Contains(v.Error.Message, "signal 11 (segmentation fault)") {
			t.Errorf("got phase %s and error %v, want failed with %s by signal 11", v.Phase, v.Error, vm.CodeHypervisor)
		}
		if n := processes(t, g.machine(id)); n != 0 {
			t.Errorf("got %d processes of a machine that failed, want none", n)
		}
	}
}

// A QEMU that dies before it has so much as a pid file is started once more; one
// that says why it ends is not.
func TestDeathBeforeTheMonitor(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		dies  string
		want  vm.Phase
		words string
	}{
		"by SIGSEGV":         {"kill -SEGV $$", vm.Ready, ""},
		"by SIGKILL":         {"kill -KILL $$", vm.Ready, ""},
		"without a word":     {"exit 3", vm.Ready, ""},
		"with an explaining": {"echo no such device >&2; exit 1", vm.Failed, "no such device"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newTestDriver(t)
			script := filepath.Join(harness.ProgramDir(t), "qemu")
			install := func(dies string) {
				text := "#!/bin/sh\ncase \" $* \" in *' -name '*) " + dies + ";; esac\nexec qemu-system-x86_64 \"$@\"\n"
				vmtest.WriteProgram(t, script+".new", text)
				harness.Must(t, os.Rename(script+".new", script))
			}
			install(test.dies)
			dying := func(life int) bool {
				if life > 1 {
					install(":")
				}
				return false
			}
			o := options(r.data)
			o.QEMU = script
			d, err := openDriver(o)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			g := newManaged(r, &mortal{Driver: d, t: t, deaths: map[string]*death{}, death: moments, kills: dying}, idleGuest)
			id := g.create().ID
			v := g.settled(1)[id]
			if v.Phase != test.want || v.Error != nil && !strings.Contains(v.Error.Message, test.words) {
				t.Errorf("got phase %s and error %v, want %s %s", v.Phase, v.Error, test.want, test.words)
			}
			if n := processes(t, g.machine(id)); n != map[vm.Phase]int{vm.Ready: 1}[test.want] {
				t.Errorf("got %d processes of a machine that is %s", n, v.Phase)
			}
		})
	}
}

// A guest that switches its machine off before it gave a sign of life is none
// that died.
func TestGuestStopsWhileCreating(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	g := newManaged(r, r.Driver, powerOffGuest)
	id := g.create().ID
	if v := g.settled(1)[id]; v.Phase != vm.Failed || v.Error == nil || v.Error.Code != vm.CodeGuestStopped {
		t.Errorf("got phase %s and error %v, want failed with %s", v.Phase, v.Error, vm.CodeGuestStopped)
	}
}

// The document of a machine that is off says why, also to who asks a later
// daemon, until it is started.
func TestStoppedBecause(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.running(idleGuest)
	group := func() {
		pgid, err := syscall.Getpgid(pidOf(t, m))
		if err != nil {
			t.Fatal(err)
		}
		signal(t, -pgid, syscall.SIGKILL)
	}
	orphaned := func() {
		signal(t, shellOf(t, m), syscall.SIGKILL)
		until(t, harness.Timeout, "the shell's end", func() bool { return len(supervisedIn(m.Dir)) == 1 })
		if st := r.inspect(m); st.Power != vm.PoweredOn {
			t.Errorf("got %+v without the shell that waits for QEMU, want powered-on", st)
		}
		signal(t, pidOf(t, m), syscall.SIGKILL)
	}
	for _, test := range []struct {
		stop func()
		want string
		died bool
	}{
		{func() { signal(t, pidOf(t, m), syscall.SIGSEGV) }, "QEMU was killed by signal 11 (segmentation fault)", true},
		{func() { signal(t, pidOf(t, m), syscall.SIGKILL) }, "QEMU was killed by signal 9 (killed)", true},
		{func() { signal(t, pidOf(t, m), syscall.SIGTERM) }, "QEMU was ended by signal 15 (terminated)", true},
		{orphaned, "QEMU was killed together with what watched it, or the host restarted", true},
		{group, "QEMU was killed together with what watched it, or the host restarted", true},
		{func() { r.press(m, vm.ActionOff) }, "it was switched off", false},
		{func() { quitByHand(t, m) }, "the guest shut down", false},
	} {
		test.stop()
		var st vm.Status
		until(t, harness.Timeout, "the machine's end", func() bool {
			st = r.inspect(m)
			return st.Power == vm.PoweredOff
		})
		later, err := openDriver(options(r.data))
		if err != nil {
			t.Fatal(err)
		}
		again, err := later.Inspect(t.Context(), m)
		if err != nil {
			t.Error(err)
		}
		if err := later.Close(); err != nil {
			t.Error(err)
		}
		for _, st := range []vm.Status{st, again} {
			if st.StoppedBecause != test.want || st.Died != test.died {
				t.Errorf("got %q, died %t; want %q, died %t", st.StoppedBecause, st.Died, test.want, test.died)
			}
		}
		r.start(m)
		if st := r.inspect(m); st.StoppedBecause != "" || st.Died || st.Power != vm.PoweredOn {
			t.Errorf("got %+v once it is started, want no reason", st)
		}
	}
}

// quitByHand ends QEMU in order, as its guest does.
func quitByHand(t *testing.T, m vm.Machine) {
	t.Helper()
	tellQEMU(t, m, fmt.Sprintf("{%q: %q}", "execute", "quit"))
}

// Nothing is left of a machine that is destroyed: neither its QEMU nor the shell
// that waits for it. QEMU does not hold the file that the shell writes to.
func TestSupervisorEndsWithQEMU(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.running(idleGuest)
	if all := supervisedIn(m.Dir); len(all) != 2 {
		t.Errorf("got processes %v in the machine's folder, want QEMU and its shell", all)
	}
	for name, pid := range map[string]int{"QEMU": pidOf(t, m), "the shell": shellOf(t, m)} {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		holds := slices.ContainsFunc(files, func(f string) bool {
			to, _ := os.Readlink(f)
			return to == filepath.Join(m.Dir, "exit")
		})
		if err != nil || holds != (name == "the shell") {
			t.Errorf("%s holds the file for the exit status: %t (%v)", name, holds, err)
		}
	}
	signal(t, pidOf(t, m), syscall.SIGKILL)
	until(t, harness.Timeout, "the shell's end", func() bool { return len(workingIn(m.Dir)) == 0 })
	r.start(m)
	if err := r.Destroy(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	until(t, harness.Timeout, "the end of all processes", func() bool { return len(workingIn(m.Dir)) == 0 })
}

// shellOf returns the process that waits for the machine's QEMU.
func shellOf(t *testing.T, m vm.Machine) int {
	t.Helper()
	for _, pid := range supervisedIn(m.Dir) {
		if pid != pidOf(t, m) {
			return pid
		}
	}
	t.Fatal("nobody waits for QEMU")
	return 0
}

// supervisedIn returns QEMU and the shell that waits for it, without the programs that run beside them.
func supervisedIn(dir string) (pids []int) {
	var trimmer, session int
	text, _ := os.ReadFile(filepath.Join(dir, "trimmer.pid"))
	_, _ = fmt.Sscan(string(text), &trimmer, &session)
	for _, pid := range workingIn(dir) {
		if of, err := unix.Getsid(pid); err == nil && of != session {
			pids = append(pids, pid)
		}
	}
	return pids
}

// workingIn returns the processes whose working directory is dir, or was until it
// was removed.
func workingIn(dir string) (pids []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		to, err := os.Readlink(link)
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err == nil && strings.TrimSuffix(to, " (deleted)") == dir {
			pids = append(pids, pid)
		}
	}
	return pids
}

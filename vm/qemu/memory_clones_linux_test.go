package qemu_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/harness"
)

// Guests send uploads of this many bytes to this port.
const (
	uploadSize = 2 << 20
	uploadPort = "81"
)

// takeUploads answers "all" once it has received all of an upload.
func (s space) takeUploads(t *testing.T) {
	t.Helper()
	var l net.Listener
	if err := s.Do(func() (err error) { l, err = net.Listen("tcp4", ":"+uploadPort); return err }); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(harness.Timeout))
			if _, err := io.CopyN(io.Discard, c, uploadSize); err == nil {
				fmt.Fprint(c, "all")
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// refusesAtOnce checks that a closed UDP port is refused: the refusal quotes the packet with the guest's inner address.
func refusesAtOnce(t *testing.T, ip string) {
	t.Helper()
	c, err := net.Dial("udp4", net.JoinHostPort(ip, "9"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(harness.Timeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed port: got %v, want %v", err, syscall.ECONNREFUSED)
	}
}

// writesAll lets a machine write to its whole disk and to much of its memory.
func (h *memoryHost) writesAll(t *testing.T) {
	m, st := h.create(t)
	if st.Start != vm.StartMemory {
		t.Fatalf("got %+v, want a start from memory", st)
	}
	until(t, harness.Timeout, "the agent", func() bool { return h.inspect(m).Tools == vm.ToolsRunning })
	inGuest(t, m, "yes dirty | head -c 64m >/dirty; yes dirty | dd of=/dev/sda bs=1M 2>/dev/null; sync")
}

// wantSealed checks that this process has the template's memory as it was saved, and that it is sealed.
func wantSealed(t *testing.T, data, key string) {
	t.Helper()
	want := sumOf(t, filepath.Join(data, "templates", key, "ram"))
	found := 0
	for fd := range 1024 {
		path := fmt.Sprintf("/proc/self/fd/%d", fd)
		if name, err := os.Readlink(path); err != nil || !strings.HasPrefix(name, "/memfd:osx-builder-template") {
			continue
		}
		found++
		if got := sumOf(t, path); got != want {
			t.Errorf("the template's memory has the checksum %s, want %s", got, want)
		}
		if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
			if _, err := f.WriteAt([]byte("x"), 0); err == nil {
				t.Error("the template's memory is not sealed")
			}
			f.Close()
		}
	}
	if found == 0 {
		t.Error("this process has no memory of a template")
	}
}

// wantWithinPromise checks that machines together take no more of the host's memory than was promised to them.
func wantWithinPromise(t *testing.T, machines ...vm.Machine) {
	t.Helper()
	promised, used := 0, 0
	for _, m := range machines {
		promised += m.Memory
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pidOf(t, m)))
		harness.Must(t, err)
		var kib int
		_, after, _ := strings.Cut(string(text), "\nPss:")
		if _, err := fmt.Sscan(after, &kib); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		used += kib >> 10
	}
	t.Logf("%d machines take %d MiB of the host's memory; %d MiB are promised", len(machines), used, promised)
	if used > promised {
		t.Errorf("%d machines take %d MiB of the host's memory, and %d MiB are promised", len(machines), used, promised)
	}
}

// comesAndGoes creates and destroys machines, and checks that nothing of them stays. CREATES is how many.
func (h *memoryHost) comesAndGoes(t *testing.T) {
	before := openFiles(t)
	for range harness.EnvInt(t, "CREATES", 3) {
		m, st := h.create(t)
		if st.Start != vm.StartMemory {
			t.Errorf("got %+v, want a start from memory", st)
		}
		wantWithinPromise(t, m)
		harness.Must(t, h.Destroy(t.Context(), m))
	}
	until(t, harness.Timeout, "the end of what belonged to the machines", func() bool { return openFiles(t) <= before })
	if out, err := exec.Command("nft", "list", "tables", "netdev").CombinedOutput(); err != nil || strings.Count(string(out), "table netdev") > len(taps(t)) {
		t.Errorf("there are the tables %s (%v) for the taps %q", out, err, taps(t))
	}
}

// setsClock starts a machine that runs, which sets its clock again, while the connection to its agent is taken.
func (h *memoryHost) setsClock(t *testing.T, m vm.Machine) {
	taken, err := net.Dial("unix", filepath.Join(m.Dir, "qga"))
	harness.Must(t, err)
	defer taken.Close()
	h.ReleaseAgent(m.Dir)
	h.with(t).start(m)
	if st := h.with(t).inspect(m); st.Power != vm.PoweredOn || st.IP == "" || st.Tools != vm.ToolsUnknown {
		t.Errorf("got %+v, want a machine that runs and has an address, with unknown tools", st)
	}
	harness.Must(t, taken.Close())
	until(t, harness.Timeout, "the agent", func() bool { return h.inspect(m).Tools == vm.ToolsRunning })
}

// staysSilent continues a guest that has no connection to its network. Until its sign of life is given up, the machine shows
// that it runs, and its address. Then it boots.
func (h *memoryHost) staysSilent(t *testing.T, m vm.Machine) {
	var attached struct{ Tap string }
	link := filepath.Join(m.Dir, "link.json")
	harness.Must(t, json.Unmarshal([]byte(harness.ReadFile(t, link)), &attached))
	// The repair of the networks, which runs now and then, would bring a tap that is down up again.
	h.with(t).run("nft", "add table netdev silence; add chain netdev silence from { type filter hook ingress device "+attached.Tap+" priority -500; policy drop; }")
	ended := make(chan error, 1)
	go func() { ended <- h.Start(t.Context(), m) }()
	until(t, harness.Timeout, "a guest that continues", func() bool {
		st := h.with(t).inspect(m)
		if st.Power == vm.PoweringOn {
			return false
		}
		if st.Power != vm.PoweredOn || st.IP == "" || st.Up || st.Start != vm.StartMemory || st.Tools != vm.ToolsUnknown {
			t.Errorf("got %+v, want a machine that runs and has an address, without a sign of life", st)
		}
		return true
	})
	harness.Must(t, os.Rename(link, link+".away")) // as if the machine was just being destroyed
	if st := h.with(t).inspect(m); st.IP != "" {
		t.Errorf("without its attachment: got %+v, want no address", st)
	}
	harness.Must(t, os.Rename(link+".away", link))
	harness.Must(t, <-ended)
	h.with(t).run("nft", "delete table netdev silence")
	if st := h.up(t, m); st.Start == vm.StartMemory || !booted(st, "no sign of life") || processes(t, m) != 1 {
		t.Errorf("got %+v, want a boot and a warning with the reason", st)
	}
}

// openFiles counts the files that this process has open.
func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	harness.Must(t, err)
	return len(all)
}

// taps lists the network devices of machines.
func taps(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("ip", "-o", "link", "show", "type", "tun").Output()
	harness.Must(t, err)
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// logBuffer keeps a log.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// hostileClone starts a machine from the template with a program in QEMU's place that tries to change it. Nothing is
// ever loaded by another QEMU, so the template gets a second name: its key for that program.
func (h *memoryHost) hostileClone(t *testing.T, key string) {
	own := filepath.Join(harness.ProgramDir(t), "qemu")
	vmtest.WriteProgram(t, own, harness.ReadFile(t, buildHostile(t))+"\nHOSTILE-TARGETS:{}")
	log := &logBuffer{}
	o := h.options
	o.QEMU, o.Log = own, slog.New(slog.NewTextHandler(io.MultiWriter(log, t.Output()), nil))
	d, err := openDriver(o)
	harness.Must(t, err)
	defer func() { harness.Must(t, d.Close()) }()
	first := h.with(t).machine()
	first.Memory, first.Start = 256, vm.StartMemory
	harness.Must(t, d.Clone(t.Context(), first, h.gold))
	failed := regexp.MustCompile(`no template for starting from memory.* template=([0-9a-f]{32})`)
	until(t, harness.Timeout, "the key for the program", func() bool { return failed.MatchString(log.String()) })
	other := failed.FindStringSubmatch(log.String())[1]
	if other == key {
		t.Fatal("another QEMU has the same key")
	}
	harness.Must(t, d.RemoveTemplate(t.Context(), other)) // so that it looks for one again
	h.copyTemplate(t, key, other)
	before := h.files(t, other)
	m := h.with(t).machine()
	m.Memory, m.Start = 256, vm.StartMemory
	harness.Must(t, d.Clone(t.Context(), m, h.gold))
	all := hostileResults(t, m, func() {
		if err := d.Start(t.Context(), m); err == nil {
			t.Error("the hostile program answers like a QEMU")
		}
	})
	for _, want := range []string{"change the memory that was handed over", "change the template's disk"} {
		it, ok := all[want]
		if !ok || it.Succeeded || strings.Contains(it.Why, "there is none") {
			t.Errorf("%s: got %+v (tried: %t), want an attempt that fails", want, it, ok)
		}
	}
	if after := h.files(t, other); after != before {
		t.Errorf("the template changed:\n%s\nwas\n%s", after, before)
	}
	wantSealed(t, h.data, key)
	harness.Must(t, d.RemoveTemplate(t.Context(), other))
}

// copyTemplate gives a template another key.
func (h *memoryHost) copyTemplate(t *testing.T, from, to string) {
	t.Helper()
	dir := filepath.Join(h.data, "templates", to)
	h.with(t).run("cp", "-a", "--sparse=always", filepath.Join(h.data, "templates", from), dir)
	path := filepath.Join(dir, "template.json")
	info, err := os.ReadFile(path)
	harness.Must(t, err)
	harness.Must(t, os.Remove(path))
	harness.Must(t, os.WriteFile(path, bytes.ReplaceAll(info, []byte(from), []byte(to)), 0o600))
}

// hostileResults runs start and returns what the machine's first program tried, by name. A second start replaces the
// file with that, so it is opened as soon as it is there.
func hostileResults(t *testing.T, m vm.Machine, start func()) map[string]tried {
	t.Helper()
	started := make(chan struct{})
	opened := make(chan *os.File, 1)
	go func() {
		for {
			f, err := os.Open(filepath.Join(m.Dir, "qemu.log"))
			if err == nil {
				opened <- f
				return
			}
			select {
			case <-started:
				close(opened)
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	start()
	close(started)
	f := <-opened
	if f == nil {
		t.Fatal("no program was started")
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	harness.Must(t, err)
	all := map[string]tried{}
	for line := range strings.Lines(string(text)) {
		var it tried
		if err := json.Unmarshal([]byte(line), &it); err == nil {
			all[it.Name] = it
		}
	}
	return all
}

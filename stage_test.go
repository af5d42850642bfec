package main_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
)

// binary is the built daemon, with the race detector in it.
var binary string

func TestMain(m *testing.M) {
	e2e.Launch()
	flag.Parse()
	if _, err := e2e.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "osxb")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "osx-builder")
	if err := buildDaemon(binary, "-race", "-tags", "vix"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// buildDaemon builds the daemon as make does, but for its own flags.
func buildDaemon(path string, flags ...string) error {
	include, err := filepath.Abs("vm/vix/include")
	if err != nil {
		return err
	}
	build := exec.Command("go", append(append([]string{"build", "-o", path}, flags...), ".")...)
	build.Env = os.Environ()
	if c := os.Getenv("CGO_CFLAGS"); !strings.Contains(c, include) {
		build.Env = append(build.Env, fmt.Sprintf("CGO_CFLAGS=%s %q", c, "-I"+include))
	}
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the daemon: %w\n%s", err, out)
	}
	return nil
}

// stage is a running daemon and a web site, and what is left of them is
// checked at the test's end.
type stage struct {
	*e2e.Daemon
	t    *testing.T
	site *e2e.Site
	args []string
	env  []string

	program string // the daemon
}

// newStage starts a daemon on QEMU, unless these flags say otherwise.
func newStage(t *testing.T, args ...string) *stage {
	t.Helper()
	return newStageEnv(t, nil, args...)
}

func newStageEnv(t *testing.T, env []string, args ...string) *stage {
	t.Helper()
	return newStageOf(t, binary, env, args...)
}

// newStageOf starts another daemon than the real one.
func newStageOf(t *testing.T, program string, env []string, args ...string) *stage {
	t.Helper()
	s := bareStage(t, env, args...)
	s.program = program
	s.start()
	return s
}

// bareStage is a stage whose daemon does not run yet.
func bareStage(t *testing.T, env []string, args ...string) *stage {
	t.Helper()
	data, err := os.MkdirTemp("", "osxb") // short: sockets will be in it
	must(t, err)
	s := &stage{t: t, site: e2e.NewSite("build"), args: append([]string{"-driver", "qemu"}, args...), env: env, program: binary}
	t.Cleanup(func() {
		s.clear()
		if left := e2e.Traces(data); len(left) > 0 {
			t.Errorf("left behind: %s", strings.Join(left, ", "))
		}
		if strings.Contains(s.Log(), "DATA RACE") || t.Failed() {
			t.Errorf("the daemon's log:\n%s", s.Log())
		}
		s.site.Close()
		must(t, os.RemoveAll(data))
	})
	s.Daemon = &e2e.Daemon{Data: data}
	return s
}

func (s *stage) start() {
	s.t.Helper()
	d, err := e2e.Start(e2e.Options{Binary: s.program, Data: s.Data, Args: s.args, Env: s.env})
	must(s.t, err)
	s.Daemon = d
}

// in is the stage as a subtest uses it.
func (s *stage) in(t *testing.T) *stage {
	sub := *s
	sub.t = t
	return &sub
}

// clear destroys all machines and stops the daemon.
func (s *stage) clear() {
	a, err := s.Do("GET", "/vms", "", nil)
	if err != nil {
		return // the test stopped it
	}
	var list struct{ VMs []vm.VM }
	must(s.t, a.JSON(&list))
	for _, v := range list.VMs {
		s.destroy(v.ID)
	}
	must(s.t, s.Stop())
}

// image is a guest image from build/.
func (s *stage) image(file string) e2e.Image {
	s.t.Helper()
	path := need(s.t, filepath.Join("build", file))
	sum, err := e2e.SHA256(path)
	must(s.t, err)
	return e2e.Image{URL: s.site.ImageURL(file), SHA256: sum}
}

// without skips the test for want of something, but never in CI.
func without(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// need returns the path of a file that make test has built. Without it the
// test cannot run, which CI does not let pass.
func need(t *testing.T, path string) string {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		without(t, fmt.Sprintf("%v; make test builds it", err))
	}
	return path
}

// firstExample is the body of the first example in the project's description,
// its trailing comma and all.
func (s *stage) firstExample(i e2e.Image, memory string) string {
	return fmt.Sprintf(`{
"cpus": 2,
"memory": %q,
"network_type": "nat",
"image": {
"url": %q,
"checksum": %q,
"checksum_type": "sha256"
},
"launch_gui": true,
"callback_url": %q,
}`, memory, i.URL, i.SHA256, s.site.CallbackURL())
}

const tinyvm = "tinyvm.tar.gz"

// small is a request's fields that leave room, and time, for others on the host.
func small(more map[string]any) map[string]any {
	fields := map[string]any{"cpus": 1, "memory": "192mib", "tools_init_timeout": "2m"}
	for k, v := range more {
		fields[k] = v
	}
	return fields
}

func (s *stage) create(body []byte) vm.VM {
	s.t.Helper()
	v, _, err := s.VM("POST", "/vms", body, http.StatusAccepted)
	must(s.t, err)
	return v
}

// settled waits until the machine is ready or failed.
func (s *stage) settled(id string) vm.VM {
	s.t.Helper()
	v, _, err := s.VM("GET", "/vms/"+id+"?wait=2m", nil, http.StatusOK)
	must(s.t, err)
	return v
}

func (s *stage) ready(id string) vm.VM {
	s.t.Helper()
	v := s.settled(id)
	if v.Phase != vm.Ready || v.Status != vm.PoweredOn {
		s.t.Fatalf("got phase %s, status %s, error %+v, want ready and powered-on", v.Phase, v.Status, v.Error)
	}
	return v
}

func (s *stage) get(id string) vm.VM {
	s.t.Helper()
	v, _, err := s.VM("GET", "/vms/"+id, nil, http.StatusOK)
	must(s.t, err)
	return v
}

// until reads the machine again and again until it is as asked.
func (s *stage) until(id, what string, ok func(vm.VM) bool) vm.VM {
	s.t.Helper()
	var v vm.VM
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if v = s.get(id); ok(v) {
			return v
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.t.Fatalf("not %s within a minute: %+v", what, v)
	return v
}

func (s *stage) destroy(id string) {
	s.t.Helper()
	_, _, err := s.VM("DELETE", "/vms/"+id, nil, http.StatusNoContent)
	must(s.t, err)
}

// page is the guest's own view of itself.
func (s *stage) page(v vm.VM) map[string]string {
	s.t.Helper()
	page, err := e2e.Page(v, "/", 30*time.Second)
	must(s.t, err)
	return page
}

// mark reads or, with a value, writes the mark on the guest's disk.
func (s *stage) mark(v vm.VM, value string) string {
	s.t.Helper()
	url := e2e.GuestURL(v, "/cgi-bin/mark")
	if value != "" {
		url += "?value=" + value
	}
	res, err := http.Get(url)
	must(s.t, err)
	defer res.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(res.Body)
	must(s.t, err)
	return strings.TrimSpace(b.String())
}

// callback returns the next callback's document.
func (s *stage) callback() (v vm.VM) {
	s.t.Helper()
	select {
	case c := <-s.site.Callbacks:
		must(s.t, json.Unmarshal(c.Body, &v))
	case <-time.After(30 * time.Second):
		s.t.Fatal("no callback within 30 s")
	}
	return v
}

// machines counts the QEMU processes that run from the data folder.
func (s *stage) machines() (n int) {
	for _, trace := range e2e.Traces(s.Data) {
		if strings.Contains(trace, "qemu") {
			n++
		}
	}
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

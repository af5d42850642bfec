package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/renameio/v2"
	"github.com/google/uuid"
	"github.com/julienschmidt/httprouter"

	"osx-builder/api"
	"osx-builder/callback"
	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// samples are the measured times of the daemon and of the baseline.
type samples struct{ ours, baseline []time.Duration }

// report reports the medians and their ratio: 1 is as fast as the baseline, 2 is
// half as fast.
func (s samples) report(b *testing.B, name string) {
	ours, baseline := harness.Median(s.ours), harness.Median(s.baseline)
	b.ReportMetric(float64(ours)/float64(baseline), name+"/baseline")
	b.ReportMetric(float64(ours.Microseconds())/1000, name+"-ms")
	b.ReportMetric(float64(baseline.Microseconds())/1000, name+"-baseline-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkAccept measures the time from POST to the 202. The baseline is an
// httprouter handler that decodes the same body and writes the same file with the
// same fsyncs.
func BenchmarkAccept(b *testing.B) {
	data := b.TempDir()
	done := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-done }))
	images, err := image.Open(filepath.Join(data, "images"), image.Options{})
	harness.Must(b, err)
	sender := callback.New(callback.Options{})
	vms, err := vm.Open(vm.Options{
		Dir: filepath.Join(data, "vms"), Driver: &vmtest.Driver{}, Hypervisor: "memory",
		Images: images, Callbacks: sender, Creations: 1 << 20,
	})
	harness.Must(b, err)
	ours := httptest.NewServer(api.New(vms, api.Options{Log: slog.New(slog.DiscardHandler)}))
	baseline := httptest.NewServer(baselineCreateHandler(filepath.Join(data, "base")))
	body := e2e.Image{URL: web.URL, SHA256: strings.Repeat("a", 64)}.Body(map[string]any{"cpus": 2, "memory": "1gib"})
	var p samples
	for range 300 {
		p.ours = append(p.ours, harness.Measure(func() { post(b, ours.URL, body) }))
		p.baseline = append(p.baseline, harness.Measure(func() { post(b, baseline.URL, body) }))
	}
	p.report(b, "accept")
	ours.Close()
	baseline.Close()
	vms.Close()
	close(done)
	harness.Must(b, images.Close())
	sender.Close()
	web.Close()
}

func baselineCreateHandler(dir string) http.Handler {
	r := httprouter.New()
	r.POST("/vms", func(w http.ResponseWriter, req *http.Request, _ httprouter.Params) {
		var q vm.Request
		if err := json.NewDecoder(req.Body).Decode(&q); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		b, _ := json.MarshalIndent(q, "", "  ")
		_ = os.MkdirAll(dir, 0o700)
		if renameio.WriteFile(filepath.Join(dir, uuid.NewString()+".json"), b, 0o600) != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if d, err := os.Open(dir); err == nil {
			_ = d.Sync()
			_ = d.Close()
		}
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write(b)
	})
	return r
}

// bootCount is the number of measured boots.
const bootCount = 5

// BenchmarkWarmCreate measures a creation with a cached image, until the machine is
// powered on and until the guest's page answers. The baseline is a shell script that
// creates the same overlay and starts QEMU with the same arguments.
func BenchmarkWarmCreate(b *testing.B) {
	r := newBenchmark(b, "-network", "user", "-forward", "80")
	gold, err := filepath.Glob(filepath.Join(r.Data, "images", "gold", "*", "*", "*.vmdk"))
	harness.Must(b, err)
	var on, page samples
	for range bootCount {
		start := time.Now()
		v := r.create()
		r.waitPoweredOn(v.ID)
		on.ours = append(on.ours, time.Since(start))
		r.waitPage(v.ID)
		page.ours = append(page.ours, time.Since(start))
		r.destroy(v.ID)

		start = time.Now()
		m := r.startManually(gold[0])
		on.baseline = append(on.baseline, time.Since(start))
		m.waitPage()
		page.baseline = append(page.baseline, time.Since(start))
		m.stop()
	}
	on.report(b, "powered-on")
	page.report(b, "page")
}

// BenchmarkColdCreate measures a creation that downloads its image. The baseline is a
// shell script with curl, sha256sum, tar and the same QEMU.
func BenchmarkColdCreate(b *testing.B) {
	r := newBenchmark(b, "-network", "user", "-forward", "80")
	var page samples
	for range bootCount {
		harness.Must(b, r.Stop())
		harness.MakeWritable(filepath.Join(r.Data, "images"))
		harness.Must(b, os.RemoveAll(filepath.Join(r.Data, "images")))
		r.start()
		start := time.Now()
		v := r.create()
		r.waitPage(v.ID)
		page.ours = append(page.ours, time.Since(start))
		r.destroy(v.ID)

		start = time.Now()
		dir := b.TempDir()
		script := fmt.Sprintf("cd %s && curl -sSo f %s && echo '%s  f' | sha256sum -c --quiet && tar xf f",
			dir, r.image.URL, r.image.SHA256)
		harness.Must(b, exec.Command("sh", "-c", script).Run())
		gold, err := filepath.Glob(filepath.Join(dir, "*", "*.vmdk"))
		harness.Must(b, err)
		m := r.startManually(gold[0])
		m.waitPage()
		page.baseline = append(page.baseline, time.Since(start))
		m.stop()
	}
	page.report(b, "cold-page")
}

// benchmark is a daemon, and the command line with which it started QEMU for a
// machine.
type benchmark struct {
	*e2e.Daemon
	b        *testing.B
	args     []string // of the daemon
	site     *e2e.Site
	image    e2e.Image
	qemuArgs []string // the command line
}

func newBenchmark(b *testing.B, args ...string) *benchmark {
	b.Helper()
	r := openBenchmark(b, harness.TinyVM, args...)
	v := r.create()
	r.waitPage(v.ID)
	r.qemuArgs = r.commandLine(v.ID)
	r.destroy(v.ID)
	return r
}

// openBenchmark returns a daemon, and the image in a file of [harness.BuildDir].
func openBenchmark(b *testing.B, file string, args ...string) *benchmark {
	b.Helper()
	data := harness.DataDir(b)
	r := &benchmark{b: b, args: args, site: e2e.NewSite(harness.BuildDir(b)), Daemon: &e2e.Daemon{Data: data}}
	var err error
	if r.image, err = r.site.Image(file); err != nil {
		b.Fatalf("%v; make test builds it", err)
	}
	r.start()
	b.Cleanup(func() {
		if b.Failed() {
			b.Logf("%s\nthe daemon's log:\n%s", harness.Diagnostics(data), r.Log())
		}
		r.destroyAll()
		harness.Must(b, r.Stop())
		r.site.Close()
	})
	return r
}

// commandLine returns the command line of a machine's QEMU.
func (r *benchmark) commandLine(id string) []string {
	r.b.Helper()
	pid, err := os.ReadFile(filepath.Join(r.Data, "vms", id, "pid"))
	harness.Must(r.b, err)
	text, err := os.ReadFile(filepath.Join("/proc", strings.Fields(string(pid))[0], "cmdline"))
	harness.Must(r.b, err)
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// destroyAll destroys the machines that a failed benchmark left.
func (r *benchmark) destroyAll() {
	vms, err := r.List()
	if err != nil {
		return // the benchmark stopped the daemon
	}
	for _, v := range vms {
		r.destroy(v.ID)
	}
}

func (r *benchmark) start() {
	r.b.Helper()
	args := append([]string{"-driver", "qemu"}, r.args...)
	d, err := e2e.Start(e2e.Options{Binary: harness.PlainBinary(r.b), Data: r.Data, Args: args})
	harness.Must(r.b, err)
	r.Daemon = d
}

func (r *benchmark) create() vm.VM {
	r.b.Helper()
	v, _, err := r.VM("POST", "/vms", r.image.Body(map[string]any{"memory": "256mib"}), http.StatusAccepted)
	harness.Must(r.b, err)
	return v
}

func (r *benchmark) waitPoweredOn(id string) vm.VM {
	r.b.Helper()
	return r.waitUntil(id, func(v vm.VM) bool { return v.Status == vm.PoweredOn })
}

func (r *benchmark) waitAddress(id string) vm.VM {
	r.b.Helper()
	return r.waitUntil(id, func(v vm.VM) bool { return v.IPAddress != "" })
}

func (r *benchmark) waitUntil(id string, done func(vm.VM) bool) (v vm.VM) {
	r.b.Helper()
	for !done(v) {
		var err error
		v, _, err = r.VM("GET", "/vms/"+id, nil, http.StatusOK)
		harness.Must(r.b, err)
		if v.Error != nil {
			r.b.Fatalf("the machine failed: %+v", v.Error)
		}
	}
	return v
}

func (r *benchmark) waitPage(id string) {
	r.b.Helper()
	_, err := e2e.GuestPage(r.waitAddress(id), "/", harness.Timeout)
	harness.Must(r.b, err)
}

func (r *benchmark) destroy(id string) {
	r.b.Helper()
	_, _, err := r.VM("DELETE", "/vms/"+id, nil, http.StatusNoContent)
	harness.Must(r.b, err)
}

// manualMachine is a machine that a shell script started.
type manualMachine struct {
	b        *testing.B
	dir      string
	pagePort int // host port of the guest's page
}

// startManually runs a shell script that creates an overlay and starts QEMU with the
// daemon's arguments, but with other files and ports.
func (r *benchmark) startManually(vmdk string) manualMachine {
	r.b.Helper()
	dir := r.b.TempDir()
	m := manualMachine{r.b, dir, harness.FreePort(r.b)}
	forward := fmt.Sprintf("hostfwd=tcp:127.0.0.1:%d-:22,hostfwd=tcp:127.0.0.1:%d-:80", harness.FreePort(r.b), m.pagePort)
	args := slices.Clone(r.qemuArgs)
	for i, a := range args {
		if at := strings.Index(a, "hostfwd="); at >= 0 {
			a = a[:at] + forward
		}
		args[i] = byName(a, vmdk)
	}
	for at := slices.Index(args, "-add-fd"); at >= 0; at = slices.Index(args, "-add-fd") {
		args = slices.Delete(args, at, at+2)
	}
	args = append(args, "-pidfile", "pid")
	var script strings.Builder
	fmt.Fprintf(&script, "cd %s && qemu-img create -q -f qcow2 -F vmdk -b %s disk0.qcow2 &&", dir, vmdk)
	for _, a := range args {
		fmt.Fprintf(&script, " '%s'", a)
	}
	script.WriteString(" </dev/null >/dev/null 2>&1 & while [ ! -S " + dir + "/qmp ]; do sleep 0.005; done")
	out, err := exec.Command("sh", "-c", script.String()).CombinedOutput()
	if err != nil {
		r.b.Fatalf("starting QEMU from a shell: %v: %s", err, out)
	}
	return m
}

// byName returns an option in which QEMU opens by its name what the daemon hands it open.
func byName(option, vmdk string) string {
	for with, instead := range map[string]string{
		"rng-random,id=rng0,": "rng-random,id=rng0,filename=/dev/urandom",
		"socket,id=qmp,":      "socket,id=qmp,path=qmp,server=on,wait=off",
		"socket,id=qga,":      "socket,id=qga,path=qga,server=on,wait=off",
		"file,id=serial0,":    "file,id=serial0,path=serial.log",
	} {
		if strings.HasPrefix(option, with) {
			return instead
		}
	}
	if !strings.Contains(option, `"node-name":"disk0"`) {
		return option
	}
	return fmt.Sprintf(`{"node-name":"disk0","driver":"qcow2","discard":"unmap","file":{"driver":"file","filename":"disk0.qcow2","discard":"unmap"},`+
		`"backing":{"driver":"vmdk","read-only":true,"backing":null,"file":{"driver":"file","filename":%q}}}`, vmdk)
}

func (m manualMachine) waitPage() {
	m.b.Helper()
	v := vm.VM{IPAddress: "127.0.0.1", PortForwards: []vm.PortForward{{Host: m.pagePort, Guest: 80}}}
	if _, err := e2e.GuestPage(v, "/", harness.Timeout); err != nil {
		console := harness.ReadFile(m.b, filepath.Join(m.dir, "serial.log"))
		m.b.Fatalf("QEMU from a shell: %v; the guest's console:\n%s", err, console)
	}
}

func (m manualMachine) stop() {
	m.b.Helper()
	pid, err := os.ReadFile(filepath.Join(m.dir, "pid"))
	harness.Must(m.b, err)
	var n int
	_, err = fmt.Sscan(string(pid), &n)
	harness.Must(m.b, err)
	p, err := os.FindProcess(n)
	harness.Must(m.b, err)
	harness.Must(m.b, p.Kill())
}

func post(b *testing.B, url string, body []byte) {
	b.Helper()
	res, err := http.Post(url+"/vms", "application/json", bytes.NewReader(body))
	harness.Must(b, err)
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	harness.Must(b, err)
	if res.StatusCode != http.StatusAccepted {
		b.Fatalf("got status %d, want 202", res.StatusCode)
	}
}

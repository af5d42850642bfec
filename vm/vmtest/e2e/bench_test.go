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
	"strconv"
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

// pair is what one run took of ours and of the baseline, round by round.
type pair struct{ ours, base []time.Duration }

// report gives the medians and their ratio: 1 is as fast as the baseline, 2 is
// half as fast.
func (p pair) report(b *testing.B, name string) {
	ours, base := median(p.ours), median(p.base)
	b.ReportMetric(float64(ours)/float64(base), name+"/baseline")
	b.ReportMetric(float64(ours.Microseconds())/1000, name+"-ms")
	b.ReportMetric(float64(base.Microseconds())/1000, name+"-baseline-ms")
	b.ReportMetric(0, "ns/op")
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// BenchmarkAccept measures POST to 202 against a bare httprouter handler that
// decodes the same body and writes the same file with the same fsyncs.
func BenchmarkAccept(b *testing.B) {
	data := b.TempDir()
	hold := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hold }))
	images, err := image.Open(filepath.Join(data, "images"), image.Options{})
	harness.Must(b, err)
	sender := callback.New(callback.Options{})
	vms, err := vm.Open(vm.Options{
		Dir: filepath.Join(data, "vms"), Driver: &vmtest.Driver{}, Hypervisor: "memory",
		Images: images, Callbacks: sender, Creations: 1 << 20,
	})
	harness.Must(b, err)
	ours := httptest.NewServer(api.New(vms, api.Options{Log: slog.New(slog.DiscardHandler)}))
	base := httptest.NewServer(bareHandler(filepath.Join(data, "base")))
	body := e2e.Image{URL: web.URL, SHA256: strings.Repeat("a", 64)}.Body(map[string]any{"cpus": 2, "memory": "1gib"})
	var p pair
	for range 300 {
		p.ours = append(p.ours, timed(b, func() { post(b, ours.URL, body) }))
		p.base = append(p.base, timed(b, func() { post(b, base.URL, body) }))
	}
	p.report(b, "accept")
	ours.Close()
	base.Close()
	vms.Close()
	close(hold)
	harness.Must(b, images.Close())
	sender.Close()
	web.Close()
}

func bareHandler(dir string) http.Handler {
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

// bootRounds is how often each boot is measured.
const bootRounds = 5

// BenchmarkWarmCreate measures a creation whose image is there against a shell
// that makes the same overlay and starts QEMU with the same arguments: to the
// machine that is powered on, and to the guest's page.
func BenchmarkWarmCreate(b *testing.B) {
	r := newComparison(b, "-network", "user", "-forward", "80")
	gold, err := filepath.Glob(filepath.Join(r.Data, "images", "gold", "*", "*", "*.vmdk"))
	harness.Must(b, err)
	var on, page pair
	for range bootRounds {
		start := time.Now()
		v := r.create()
		r.poweredOn(v.ID)
		on.ours = append(on.ours, time.Since(start))
		r.page(v.ID)
		page.ours = append(page.ours, time.Since(start))
		r.destroy(v.ID)

		start = time.Now()
		h := r.byHand(gold[0])
		on.base = append(on.base, time.Since(start))
		h.page()
		page.base = append(page.base, time.Since(start))
		h.stop()
	}
	on.report(b, "powered-on")
	page.report(b, "page")
}

// BenchmarkColdCreate measures a creation that downloads its image against
// curl, sha256sum, tar and the same QEMU by hand.
func BenchmarkColdCreate(b *testing.B) {
	r := newComparison(b, "-network", "user", "-forward", "80")
	var page pair
	for range bootRounds {
		harness.Must(b, r.Stop())
		harness.Must(b, exec.Command("chmod", "-R", "u+w", filepath.Join(r.Data, "images")).Run())
		harness.Must(b, os.RemoveAll(filepath.Join(r.Data, "images")))
		r.start()
		start := time.Now()
		v := r.create()
		r.page(v.ID)
		page.ours = append(page.ours, time.Since(start))
		r.destroy(v.ID)

		start = time.Now()
		dir := b.TempDir()
		script := fmt.Sprintf("cd %s && curl -sSo f %s && echo '%s  f' | sha256sum -c --quiet && tar xf f", dir, r.image.URL, r.image.SHA256)
		harness.Must(b, exec.Command("sh", "-c", script).Run())
		gold, err := filepath.Glob(filepath.Join(dir, "*", "*.vmdk"))
		harness.Must(b, err)
		h := r.byHand(gold[0])
		h.page()
		page.base = append(page.base, time.Since(start))
		h.stop()
	}
	page.report(b, "cold-page")
}

// manualComparison is a daemon, and the command line with which it starts QEMU.
type manualComparison struct {
	*e2e.Daemon
	b     *testing.B
	args  []string // of the daemon
	site  *e2e.Site
	image e2e.Image
	qemu  []string
	dir   string // of the machine of that command line
	vmdk  string // and its gold disk
}

func newComparison(b *testing.B, args ...string) *manualComparison {
	b.Helper()
	data, err := os.MkdirTemp("", "osxb")
	harness.Must(b, err)
	r := &manualComparison{b: b, args: args, site: e2e.NewSite(harness.BuildDir(b)), Daemon: &e2e.Daemon{Data: data}}
	sum, err := e2e.SHA256(filepath.Join(harness.BuildDir(b), harness.TinyVM))
	if err != nil {
		b.Fatalf("%v; make image builds it", err)
	}
	r.image = e2e.Image{URL: r.site.ImageURL(harness.TinyVM), SHA256: sum}
	r.start()
	b.Cleanup(func() {
		if b.Failed() {
			b.Logf("%s\nthe daemon's log:\n%s", harness.Diagnostics(data), r.Log())
		}
		r.clear()
		harness.Must(b, r.Stop())
		r.site.Close()
		_ = exec.Command("chmod", "-R", "u+w", data).Run() // gold images are read-only
		harness.Must(b, os.RemoveAll(data))
	})
	v := r.create()
	r.page(v.ID)
	r.dir = filepath.Join(data, "vms", v.ID)
	pid, err := os.ReadFile(filepath.Join(r.dir, "pid"))
	harness.Must(b, err)
	line, err := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(string(pid)), "cmdline"))
	harness.Must(b, err)
	r.qemu = strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	gold, err := filepath.Glob(filepath.Join(data, "images", "gold", "*", "*", "*.vmdk"))
	harness.Must(b, err)
	r.vmdk = gold[0]
	r.destroy(v.ID)
	return r
}

// clear destroys what a measurement that failed left running.
func (r *manualComparison) clear() {
	a, err := r.Do("GET", "/vms", "", nil)
	if err != nil {
		return // it stopped the daemon
	}
	var list struct{ VMs []vm.VM }
	harness.Must(r.b, a.JSON(&list))
	for _, v := range list.VMs {
		r.destroy(v.ID)
	}
}

func (r *manualComparison) start() {
	r.b.Helper()
	d, err := e2e.Start(e2e.Options{Binary: harness.PlainBinary(r.b), Data: r.Data, Args: append([]string{"-driver", "qemu"}, r.args...)})
	harness.Must(r.b, err)
	r.Daemon = d
}

func (r *manualComparison) create() vm.VM {
	r.b.Helper()
	v, _, err := r.VM("POST", "/vms", r.image.Body(map[string]any{"memory": "256mib"}), http.StatusAccepted)
	harness.Must(r.b, err)
	return v
}

func (r *manualComparison) poweredOn(id string) vm.VM {
	r.b.Helper()
	return r.until(id, func(v vm.VM) bool { return v.Status == vm.PoweredOn })
}

func (r *manualComparison) addressed(id string) vm.VM {
	r.b.Helper()
	return r.until(id, func(v vm.VM) bool { return v.IPAddress != "" })
}

func (r *manualComparison) until(id string, done func(vm.VM) bool) (v vm.VM) {
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

func (r *manualComparison) page(id string) {
	r.b.Helper()
	_, err := e2e.GuestPage(r.addressed(id), "/", harness.Timeout)
	harness.Must(r.b, err)
}

func (r *manualComparison) destroy(id string) {
	r.b.Helper()
	_, _, err := r.VM("DELETE", "/vms/"+id, nil, http.StatusNoContent)
	harness.Must(r.b, err)
}

// manualMachine is a machine that was started by hand.
type manualMachine struct {
	b    *testing.B
	dir  string
	http int // host port of the page
}

// byHand does what a shell script would: an overlay, and QEMU with the
// daemon's arguments on other files and ports.
func (r *manualComparison) byHand(vmdk string) manualMachine {
	r.b.Helper()
	dir := r.b.TempDir()
	h := manualMachine{r.b, dir, harness.FreePort(r.b)}
	forward := fmt.Sprintf("hostfwd=tcp:127.0.0.1:%d-:22,hostfwd=tcp:127.0.0.1:%d-:80", harness.FreePort(r.b), h.http)
	args := slices.Clone(r.qemu)
	for i, a := range args {
		a = strings.ReplaceAll(strings.ReplaceAll(a, r.dir, dir), r.vmdk, vmdk)
		if at := strings.Index(a, "hostfwd="); at >= 0 {
			a = a[:at] + forward
		}
		args[i] = a
	}
	var script strings.Builder
	fmt.Fprintf(&script, "cd %s && qemu-img create -q -f qcow2 -F vmdk -b %s disk0.qcow2 &&", dir, vmdk)
	for _, a := range args {
		fmt.Fprintf(&script, " '%s'", a)
	}
	script.WriteString(" </dev/null >/dev/null 2>&1 & while [ ! -S " + dir + "/qmp ]; do sleep 0.005; done")
	out, err := exec.Command("sh", "-c", script.String()).CombinedOutput()
	if err != nil {
		r.b.Fatalf("by hand: %v: %s", err, out)
	}
	return h
}

func (h manualMachine) page() {
	h.b.Helper()
	v := vm.VM{IPAddress: "127.0.0.1", PortForwards: []vm.PortForward{{Host: h.http, Guest: 80}}}
	if _, err := e2e.GuestPage(v, "/", harness.Timeout); err != nil {
		h.b.Fatalf("by hand: %v; the guest's console:\n%s", err, harness.ReadFile(h.b, filepath.Join(h.dir, "serial.log")))
	}
}

func (h manualMachine) stop() {
	h.b.Helper()
	pid, err := os.ReadFile(filepath.Join(h.dir, "pid"))
	harness.Must(h.b, err)
	n, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	harness.Must(h.b, err)
	p, err := os.FindProcess(n)
	harness.Must(h.b, err)
	harness.Must(h.b, p.Kill())
}

func timed(b *testing.B, f func()) time.Duration {
	b.Helper()
	start := time.Now()
	f()
	return time.Since(start)
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

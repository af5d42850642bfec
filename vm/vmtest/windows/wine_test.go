//go:build wine

package windows_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// wine is a folder for wine's own files, with the programs under test.
type wine struct {
	t   *testing.T
	dir string // of the programs: build/windows
	env []string
}

// newWine makes a prefix for the test. make test-windows has built the programs.
func newWine(t *testing.T) *wine {
	t.Helper()
	t.Log("this runs under wine, with doubles of VMware: it shows nothing of VMware, and nothing that Windows does in another way")
	prefix := filepath.Join(t.TempDir(), "wine")
	w := &wine{t: t, dir: harness.Path(t, "build/windows")}
	w.env = append(os.Environ(), "WINEPREFIX="+prefix, "WINEDEBUG=-all", "WINEDLLOVERRIDES=mscoree,mshtml=", "DISPLAY=")
	t.Cleanup(func() { _ = w.command("wineserver", "-k").Run() }) // it fails if no process is left
	w.run("wine64", "wineboot", "--init")
	dll, err := os.ReadFile(filepath.Join(w.dir, "bcryptprimitives.dll"))
	harness.Must(t, err)
	harness.Must(t, os.WriteFile(filepath.Join(prefix, "drive_c", "windows", "system32", "bcryptprimitives.dll"), dll, 0o644))
	return w
}

// program returns the path of one of wine's programs.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return "/usr/lib/wine/" + name
}

// command returns a program that is not started yet.
func (w *wine) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(program(name), args...)
	cmd.Env = w.env
	return cmd
}

// keepServices starts a program that runs until the end of the test: wine ends services as soon as only services run.
// It also sets how long wine waits for a service to start, in milliseconds.
func (w *wine) keepServices() {
	w.t.Helper()
	w.run("wine64", "reg", "add", `HKLM\System\CurrentControlSet\Control`, "/v", "ServicesPipeTimeout", "/t", "REG_SZ",
		"/d", fmt.Sprint(harness.Timeout.Milliseconds()), "/f")
	_ = w.command("wineserver", "-k").Run() // the service manager reads it when it starts; no process may be left
	control := w.t.TempDir()
	hang := filepath.Join(control, "hang.list")
	harness.Must(w.t, os.WriteFile(hang, nil, 0o600))
	cmd := w.command("wine64", filepath.Join(w.dir, "vmrun.exe"), "-T", "ws", "list")
	cmd.Env = append(cmd.Env, "OSXB_VMRUN_DOUBLE="+control)
	harness.Must(w.t, cmd.Start())
	w.t.Cleanup(func() { harness.Must(w.t, errors.Join(os.Remove(hang), cmd.Wait())) })
	await(w.t, filepath.Join(control, "log"), "list", 1)
}

// run runs a program and returns what it prints. The test ends if it fails.
func (w *wine) run(name string, args ...string) string {
	w.t.Helper()
	out, err := os.Create(filepath.Join(w.t.TempDir(), "output")) // services that wine starts keep a pipe open
	harness.Must(w.t, err)
	defer out.Close()
	cmd := w.command(name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	text := harness.ReadFile(w.t, out.Name())
	if err != nil {
		w.t.Fatalf("%s %q: %v: %s", name, args, err, text)
	}
	return text
}

// windowsPath returns the path of a file of this system, as programs under wine write it.
func windowsPath(path string) string { return "Z:" + strings.ReplaceAll(path, "/", `\`) }

// wrapper writes a program for Linux that runs this one for Windows, and whose end ends that too. What wine starts
// keeps the daemon's standard error open, so that goes through a process that ends with the wrapper.
func (w *wine) wrapper(name string) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "osx-builder")
	script := fmt.Sprintf("#!/bin/sh\nd='setpriv --pdeathsig KILL'\n$d '%s' '%s' \"$@\" 2>&1 >/dev/null | $d cat >&2\n",
		program("wine64"), filepath.Join(w.dir, name))
	vmtest.WriteProgram(w.t, path, script)
	return path
}

// The tests for Windows itself pass.
func TestWindowsHost(t *testing.T) {
	t.Log(newWine(t).run("wine64", filepath.Join(harness.Path(t, "build/windows"), "host.test.exe"), "-test.v"))
}

// check-vmware walks both drivers of VMware through a machine's life, and leaves nothing.
func TestWindowsCheckVMware(t *testing.T) {
	w := newWine(t)
	home, vix, vmrun := t.TempDir(), t.TempDir(), t.TempDir()
	w.env = append(w.env, "OSXB_VIX_DOUBLE="+vix, "OSXB_VMRUN_DOUBLE="+windowsPath(vmrun))
	out := w.run("wine64", filepath.Join(w.dir, "osx-builder-vix.exe"), "check-vmware", "-data", windowsPath(filepath.Join(home, "data")),
		"-vix-library", windowsPath(filepath.Join(w.dir, "vix.dll")), "-vmrun", windowsPath(filepath.Join(w.dir, "vmrun.exe")))
	if strings.Contains(out, "FAIL") {
		t.Errorf("got the report\n%s", out)
	}
	for _, step := range []string{"connect", "clone", "start", "state", "suspend", "resume", "reset", "off", "destroy"} {
		if n := strings.Count(out, "pass "+step); n != 2 {
			t.Errorf("step %s passed %d times, want it for two drivers:\n%s", step, n, out)
		}
	}
	if left, err := os.ReadDir(home); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A machine's life in VMware, by the programs for Windows, over HTTP: creation from a URL, state, power, screenshot, a
// daemon that is killed while it works, callback, deletion. Nothing is left.
func TestWindowsLife(t *testing.T) {
	w := newWine(t)
	for name, l := range map[string]life{
		"vmrun": {"osx-builder.exe", "OSXB_VMRUN_DOUBLE", "hang.start", []string{"-vmrun", filepath.Join(w.dir, "vmrun.exe")}},
		"vix": {"osx-builder-vix.exe", "OSXB_VIX_DOUBLE", "hang.VixVM_PowerOn", []string{
			"-vix-library", windowsPath(filepath.Join(w.dir, "vix.dll")),
		}},
	} {
		t.Run(name, func(t *testing.T) { l.run(t, w, name) })
	}
}

// life is how one driver of VMware is tested.
type life struct {
	program string
	double  string // the variable with the double's control folder
	hang    string // the file that keeps the double from starting a machine
	flags   []string
}

func (l life) run(t *testing.T, w *wine, driver string) {
	control := t.TempDir()
	h := harness.NewProgram(t, w.wrapper(l.program), append(w.env, l.double+"="+control), append(l.flags, "-driver", "auto")...)
	i := h.Image(harness.TinyVM)
	hang := filepath.Join(control, l.hang)
	harness.Must(t, os.WriteFile(hang, nil, 0o600))
	v := h.Create(i.Body(harness.SmallVM(map[string]any{"callback_url": h.Site.CallbackURL()})))
	h.WaitUntil(v.ID, "starting", func(v vm.VM) bool { return v.Phase == vm.Starting })
	harness.Must(t, h.Kill())
	harness.Must(t, os.Remove(hang))
	h.Start()
	h.WaitReady(v.ID)
	before := h.WaitUntil(v.ID, "reachable", func(v vm.VM) bool { return v.IPAddress != "" && v.ToolsStatus == vm.ToolsRunning })
	if before.Hypervisor != driver || before.Status != vm.PoweredOn || before.CPUs != 1 || before.Memory != "192mib" ||
		!strings.HasPrefix(before.IPAddress, "192.168.99.") || !strings.HasPrefix(before.MACAddress, "00:0c:29:") {
		t.Errorf("GET: got %+v", before)
	}
	if posted := h.NextCallback(); posted.ID != v.ID || posted.Phase != vm.Ready {
		t.Errorf("callback: got %+v, want the ready machine", posted)
	}
	a, err := h.Do("GET", "/vms/"+v.ID+"/screenshot", "", nil)
	harness.Must(t, err)
	if a.Status != http.StatusOK || !strings.HasPrefix(string(a.Body), "\x89PNG") {
		t.Errorf("screenshot: got %d %.100q, want a PNG", a.Status, a.Body)
	}

	harness.Must(t, h.Kill())
	h.Start()
	if after := h.Get(v.ID); after.Status != vm.PoweredOn || after.MACAddress != before.MACAddress {
		t.Errorf("after a crash: got %+v, want %+v", after, before)
	}
	h.WalkPower(v.ID)
	if out := w.run("wine64", filepath.Join(w.dir, l.program), "--host", h.URL, "list"); !strings.Contains(out, v.ID[:8]) {
		t.Errorf("osx-builder list: got %q, want the machine", out)
	}
	h.Destroy(v.ID)
	_, _, err = h.VM("DELETE", "/images/"+i.SHA256, nil, http.StatusNoContent)
	harness.Must(t, err)
	checkGone(t, h.Data, control)
	harness.Must(t, h.Kill()) // a process under wine cannot be asked to end by a signal
}

// checkGone checks that nothing of machines and images is left.
func checkGone(t *testing.T, data, control string) {
	t.Helper()
	for _, pattern := range []string{
		filepath.Join(data, "vms", "*"), filepath.Join(data, "images", "gold", "*"), filepath.Join(data, "images", ".*"),
		filepath.Join(data, "images", "prepared", "*"), filepath.Join(control, "running", "*"),
	} {
		left, err := filepath.Glob(pattern)
		harness.Must(t, err)
		if len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	}
}

// Windows' service manager starts the daemon, makes it read its files again, and stops it.
func TestWindowsService(t *testing.T) {
	w := newWine(t)
	w.keepServices()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	w.env = append(w.env, "OSXB_VMRUN_DOUBLE="+windowsPath(t.TempDir()))
	command := `"` + windowsPath(filepath.Join(w.dir, "osx-builder.exe")) + `" -driver vmrun -vmrun "` +
		windowsPath(filepath.Join(w.dir, "vmrun.exe")) + `" -listen 127.0.0.1:0 -data "` +
		windowsPath(filepath.Join(dir, "data")) + `" -log-file "` + windowsPath(log) + `"`
	w.run("wine64", "sc", "create", "osx-builder", "binPath=", command)
	w.run("wine64", "sc", "start", "osx-builder")
	await(t, log, "listening", 1)
	w.run("wine64", "sc", "stop", "osx-builder")
	await(t, log, "stopping", 1)
	w.run("wine64", "sc", "start", "osx-builder") // the data folder is free again
	await(t, log, "listening", 2)
	w.run("wine64", "sc", "stop", "osx-builder")
	await(t, log, "stopping", 2)
}

// await waits until the file contains the text n times.
func await(t *testing.T, path, text string, n int) {
	t.Helper()
	for deadline := time.Now().Add(harness.Timeout); ; time.Sleep(50 * time.Millisecond) {
		b, _ := os.ReadFile(path) // it does not exist at first
		if strings.Count(string(b), text) >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q does not appear in the log:\n%s", text, b)
		}
	}
}

package e2e_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// The unit that the program prints, unchanged except for its dependencies, runs under systemd with everything that it
// denies the daemon: a machine on a managed network becomes ready, answers from its address, and is destroyed.
func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	harness.Need(t, "/lib/systemd/systemd")
	if !e2e.IsolateTest(t) {
		return
	}
	site := e2e.NewSite(harness.BuildDir(t))
	defer site.Close()
	i, err := site.Image(harness.TinyVM)
	harness.Must(t, err)
	daemon := &e2e.Daemon{URL: "http://127.0.0.1:12345"}
	runUnit(t, daemon)
	v, _, err := daemon.VM("POST", "/vms", i.Body(harness.SmallVM(nil)), http.StatusAccepted)
	harness.Must(t, err)
	for v.Phase != vm.Ready && v.Phase != vm.Failed {
		v, _, err = daemon.VM("GET", "/vms/"+v.ID+"?wait=1m", nil, http.StatusOK)
		harness.Must(t, err)
	}
	if v.Phase != vm.Ready || v.IPAddress == "" || v.IPAddress == "127.0.0.1" {
		t.Fatalf("got %+v, want a machine that is ready and has an address of its own", v)
	}
	_, err = e2e.GuestPage(v, "/", harness.Timeout)
	harness.Must(t, err)
	// The daemon reads and replaces what belongs to the machine's user.
	for path, want := range map[string]string{"console": "tinyvm: booting", "screenshot": "PNG"} {
		a, err := daemon.Do("GET", "/vms/"+v.ID+"/"+path, "", nil)
		harness.Must(t, err)
		if a.Status != http.StatusOK || !strings.Contains(string(a.Body), want) {
			t.Errorf("GET %s: got %d and %.300q, want %q in it", path, a.Status, a.Body, want)
		}
	}
	for _, action := range []string{"off", "on"} {
		_, _, err = daemon.VM("POST", "/vms/"+v.ID+"/power", fmt.Appendf(nil, `{"action": %q}`, action), http.StatusOK)
		harness.Must(t, err)
	}
	_, _, err = daemon.VM("DELETE", "/vms/"+v.ID, nil, http.StatusNoContent)
	harness.Must(t, err)
}

// runUnit runs the unit until the test ends, and returns when the daemon answers.
func runUnit(t *testing.T, daemon *e2e.Daemon) {
	t.Helper()
	// The unit's namespace hides /tmp, /home and the like.
	program := fmt.Sprintf("/usr/local/bin/osx-builder-test-%d", os.Getpid())
	copyProgram(t, harness.PlainBinary(t), program)
	var log bytes.Buffer
	cmd := exec.Command("testdata/systemd.sh", program, t.TempDir())
	cmd.Stdout, cmd.Stderr = &log, &log
	harness.Must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		harness.Must(t, cmd.Process.Signal(syscall.SIGTERM))
		<-ended
		if strings.Contains(log.String(), "level=WARN") {
			t.Error("the daemon has warned")
		}
		if t.Failed() {
			t.Logf("systemd: %s", log.String())
		}
	})
	for deadline := time.Now().Add(harness.Timeout); ; time.Sleep(100 * time.Millisecond) {
		if a, err := daemon.Do("GET", "/healthz", "", nil); err == nil && a.Status == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the daemon does not answer")
		}
	}
}

// copyProgram copies a program, and removes the copy with the test.
func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	vmtest.WriteProgram(t, to, harness.ReadFile(t, from))
	t.Cleanup(func() { harness.Must(t, os.Remove(to)) })
}

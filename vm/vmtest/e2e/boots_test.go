package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// boots counts what becomes of guests that boot.
type boots struct {
	s             *harness.Harness
	started, lost int
}

// startedAgain is what the daemon logs of a QEMU that died while its guest booted.
var startedAgain = regexp.MustCompile(`(?m)^.*starting it once more.*$`)

// await waits until the machine is ready and its guest answers. Otherwise the test fails at its end, and the evidence is
// kept.
func (b *boots) await(id string) {
	b.s.T.Helper()
	b.started++
	v := b.s.WaitSettled(id)
	why := fmt.Sprintf("phase %s, status %s, error %+v", v.Phase, v.Status, v.Error)
	if v.Phase == vm.Ready && v.Status == vm.PoweredOn {
		_, err := e2e.GuestPage(v, "/", harness.Timeout)
		if err == nil {
			return
		}
		why = err.Error()
	}
	b.lost++
	b.s.T.Errorf("boot %d: machine %s: %s; the evidence is in %s", b.started, id, why, b.keep(id, why))
}

// keep writes down what may explain a death or a hang, and returns the folder.
func (b *boots) keep(id, why string) (dir string) {
	b.s.T.Helper()
	dir = filepath.Join(harness.BuildDir(b.s.T), "soak")
	harness.Must(b.s.T, os.MkdirAll(dir, 0o755))
	text := why + "\n" + harness.Diagnostics(b.s.Data) + "\n--- the daemon's log:\n" + b.s.Log()
	harness.Must(b.s.T, os.WriteFile(filepath.Join(dir, id+".txt"), []byte(text), 0o644))
	if a, err := b.s.Do("GET", "/vms/"+id+"/screenshot", "", nil); err == nil && a.Status == http.StatusOK {
		harness.Must(b.s.T, os.WriteFile(filepath.Join(dir, id+".png"), a.Body, 0o644))
	}
	return dir
}

// report writes the numbers to the test's log, with the daemon's lines about QEMUs that died.
func (b *boots) report() {
	again := startedAgain.FindAllString(b.s.Log(), -1)
	b.s.T.Logf("%d guests booted: %d lost, %d whose QEMU died and was started once more", b.started, b.lost, len(again))
	for _, line := range again {
		b.s.T.Log(line)
	}
}

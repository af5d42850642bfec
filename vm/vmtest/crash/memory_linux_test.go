package crash_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// memoryCrash kills the daemon, a QEMU or both at one step of making a template or of starting from one.
type memoryCrash struct {
	step         string // what the data folder has then: a file of the machine's folder, or of the folder of templates
	making       bool   // of the template's own machine
	daemon, qemu bool   // are killed
}

// memoryCrashes has the cheapest first. CRASH_MEMORY is how many are done.
func memoryCrashes() []memoryCrash {
	return []memoryCrash{
		{step: "pid", making: true, daemon: true},
		{step: "pid", making: true, qemu: true},
		{step: "pid", making: true, daemon: true, qemu: true},
		{step: "state", making: true, daemon: true},
		{step: "state", making: true, qemu: true},
		{step: "state", making: true, daemon: true, qemu: true},
		{step: "templates/.new-*", making: true, daemon: true},
		{step: "templates/[0-9a-f]*", making: true, daemon: true},
		{step: "machine.json", daemon: true},
		{step: "frozen0.qcow2", daemon: true},
		{step: "pid", daemon: true},
		{step: "pid", qemu: true},
		{step: "pid", daemon: true, qemu: true},
		{step: "events", daemon: true},
		{step: "events", qemu: true},
	}
}

// TestCrashFromMemory checks that a crash while a template is made leaves a whole template or nothing of it, and that a
// machine that was to start from one gets ready nevertheless.
func TestCrashFromMemory(t *testing.T) {
	crashes := memoryCrashes()
	crashes = crashes[:min(len(crashes), harness.EnvInt(t, "CRASH_MEMORY", 1))]
	h := &crashHarness{harness.New(t, "-start", "memory")}
	body := h.Image(harness.TinyVM).Body(harness.SmallVM(map[string]any{"memory": "128mib"}))
	for _, c := range crashes {
		t.Logf("at %s: %+v", c.step, c)
		if c.making {
			h.removeTemplates()
		} else {
			h.awaitTemplate(body)
		}
		c.run(h, body)
		if t.Failed() {
			return
		}
	}
}

// run creates a machine, kills at the step, and checks what becomes of it.
func (c memoryCrash) run(h *crashHarness, body []byte) {
	h.T.Helper()
	v := h.Create(body)
	dir := c.await(h, v.ID)
	if c.daemon {
		harness.Must(h.T, h.Kill())
	}
	if c.qemu {
		killQEMUIn(h.T, dir)
	}
	if c.daemon {
		h.Start()
	}
	v = h.WaitSettled(v.ID)
	booted := slices.ContainsFunc(v.Warnings, func(w vm.Warning) bool { return w.Code == vm.WarningBooted })
	if v.Phase != vm.Ready || (v.Start == vm.StartMemory) == booted {
		h.T.Errorf("at %+v: got phase %s, error %v, start %s, warnings %v; want ready, from memory or with the reason", c, v.Phase, v.Error, v.Start, v.Warnings)
	}
	h.Destroy(v.ID)
	harness.Must(h.T, h.Stop()) // the making of a template that has failed is tried again only by the next daemon
	h.checkFolders(c)
	h.Start()
}

// await waits for the step and returns the folder of its machine.
func (c memoryCrash) await(h *crashHarness, id string) (dir string) {
	h.T.Helper()
	h.until("the step "+c.step, func() bool {
		dir = filepath.Join(h.Data, "vms", id)
		if c.making {
			dir = h.folderWithoutRecord()
		}
		pattern := filepath.Join(dir, c.step)
		if strings.HasPrefix(c.step, "templates/") {
			pattern = filepath.Join(h.Data, c.step)
		}
		found, err := filepath.Glob(pattern)
		harness.Must(h.T, err)
		published, err := filepath.Glob(filepath.Join(h.Data, "templates", "[0-9a-f]*"))
		harness.Must(h.T, err)
		return dir != "" && len(found) > 0 || c.making && len(published) > 0 // a step may be too short to be seen
	})
	return dir
}

// crashHarness is a daemon whose machines start from memory.
type crashHarness struct{ *harness.Harness }

// until looks all the time, because steps are short.
func (h *crashHarness) until(what string, done func() bool) {
	h.T.Helper()
	start, hurried := time.Now(), time.Now()
	for ; !done(); time.Sleep(time.Millisecond) {
		if time.Since(hurried) > time.Second {
			harness.Hurry(h.Data)
			hurried = time.Now()
		}
		if time.Since(start) > harness.Timeout {
			h.T.Fatalf("%v passed without %s", harness.Timeout, what)
		}
	}
}

// folderWithoutRecord returns the folder of the machine that a template is made of, or "".
func (h *crashHarness) folderWithoutRecord() string {
	entries, err := os.ReadDir(filepath.Join(h.Data, "vms"))
	harness.Must(h.T, err)
	for _, e := range entries {
		path := filepath.Join(h.Data, "vms", e.Name())
		if _, err := os.Stat(path + ".json"); e.IsDir() && errors.Is(err, os.ErrNotExist) {
			return path
		}
	}
	return ""
}

// templates returns the keys of the templates.
func (h *crashHarness) templates() (keys []string) {
	h.T.Helper()
	for _, t := range h.Templates() {
		keys = append(keys, t.Key)
	}
	return keys
}

func (h *crashHarness) removeTemplates() {
	h.T.Helper()
	for _, key := range h.templates() {
		if a, err := h.Do("DELETE", "/templates/"+key, "", nil); err != nil || a.Status != http.StatusNoContent {
			h.T.Fatalf("DELETE /templates/%s: %d %s %v", key, a.Status, a.Body, err)
		}
	}
}

// awaitTemplate makes sure that there is a template.
func (h *crashHarness) awaitTemplate(body []byte) {
	h.T.Helper()
	if len(h.templates()) > 0 {
		return
	}
	v := h.Create(body)
	h.until("a template", func() bool { time.Sleep(100 * time.Millisecond); return len(h.templates()) > 0 })
	h.Destroy(v.ID)
}

// checkFolders checks that every template is whole, and that nothing else is left. No daemon runs.
func (h *crashHarness) checkFolders(c memoryCrash) {
	h.T.Helper()
	left, err := filepath.Glob(filepath.Join(h.Data, "vms", "*"))
	harness.Must(h.T, err)
	if len(left) > 0 {
		h.T.Errorf("after %+v there is %q in the folder of machines, want nothing", c, left)
	}
	entries, err := os.ReadDir(filepath.Join(h.Data, "templates"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		h.T.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			h.T.Errorf("after %+v there is half a template %s", c, e.Name())
		}
		for _, name := range []string{"template.json", "disk0.qcow2", "empty0.qcow2", "state", "ram"} {
			if info, err := os.Stat(filepath.Join(h.Data, "templates", e.Name(), name)); err != nil || info.Size() == 0 {
				h.T.Errorf("after %+v the template lacks %s: %v", c, name, err)
			}
		}
	}
}

// killQEMUIn kills the QEMU of the machine in dir, unless it has ended.
func killQEMUIn(t *testing.T, dir string) {
	t.Helper()
	pid := 0
	b, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err == nil {
		err = json.Unmarshal(b, &pid)
	}
	if err == nil && pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// A pool makes its template, keeps machines prepared that nobody sees, and hands them out. A killed daemon leaves nothing
// of it but the machines that were handed out. It disappears with its setting and with its image.
func TestPool(t *testing.T) {
	t.Parallel()
	if !e2e.IsolateTest(t) {
		return
	}
	h := harness.NewStopped(t, nil, "-network", "bridge", "-start", "memory")
	plain, image := h.Args, h.Image(harness.TinyVM)
	h.Args = append(slices.Clone(plain), "-pool", image.SHA256+" cpus=1 memory=192MiB count=2")
	h.Start()
	pull(h, image)
	waiting := awaitPool(h, 2)
	if list, err := h.List(); err != nil || len(list) > 0 || h.QEMUCount() != 2 || len(waiting) != 2 {
		t.Errorf("got machines %+v, %v, %d QEMUs and folders %q, want no machine and two that wait", list, err, h.QEMUCount(), waiting)
	}
	if a, err := h.Do("GET", "/metrics", "", nil); err != nil || !strings.Contains(string(a.Body), `osx_builder_pool_machines{cpus="1",image="sha256-`+image.SHA256+`",memory="192mib"} 2`) {
		t.Errorf("got metrics %s, %v, want those of the pool", a.Body, err)
	}

	body := image.Body(harness.SmallVM(map[string]any{"labels": map[string]string{"job": "1"}}))
	v := h.WaitReady(h.Create(body).ID)
	if !slices.Contains(waiting, v.ID) || v.Start != vm.StartMemory || v.Labels["job"] != "1" {
		t.Errorf("got %+v, want one of %q with its label", v, waiting)
	}
	boot := h.GuestPage(v)["boot_id"]
	awaitPool(h, 2)

	harness.Must(t, h.Kill())
	h.Args = plain
	h.Start()
	if list, err := h.List(); err != nil || len(list) != 1 || h.QEMUCount() != 1 || !slices.Equal(machineFolders(h), []string{v.ID}) {
		t.Errorf("without the setting: got machines %+v, %v, %d QEMUs and folders %q, want %s alone", list, err, h.QEMUCount(), machineFolders(h), v.ID)
	}
	if got := h.GuestPage(h.Get(v.ID))["boot_id"]; got != boot {
		t.Errorf("the machine's guest has boot %s, want %s", got, boot)
	}
	harness.Must(t, h.Stop())
	h.Args = append(slices.Clone(plain), "-pool", image.SHA256+" cpus=1 memory=192MiB count=1")
	h.Start()
	awaitPool(h, 1)
	_, code, err := h.VM("DELETE", "/images/"+image.SHA256, nil, http.StatusConflict)
	harness.Must(t, err)
	if waits := awaitPool(h, 1); code != vm.CodeImageInUse {
		t.Errorf("got %s and %q, want %s and one that waits", code, waits, vm.CodeImageInUse)
	}
	h.Destroy(v.ID)
	_, _, err = h.VM("DELETE", "/images/"+image.SHA256, nil, http.StatusNoContent)
	harness.Must(t, err)
	if n := h.QEMUCount(); n != 0 || len(machineFolders(h)) > 0 {
		t.Errorf("without its image: got %d QEMUs and folders %q, want none", n, machineFolders(h))
	}
}

// pull gets an image into the cache.
func pull(h *harness.Harness, i e2e.Image) {
	h.T.Helper()
	body := `{"url": "` + i.URL + `", "checksum": "` + i.SHA256 + `"}`
	a, err := h.Do("POST", "/images?wait=5m", "application/json", []byte(body))
	harness.Must(h.T, err)
	if a.Status >= http.StatusBadRequest {
		h.T.Fatalf("POST /images: got %d %s", a.Status, a.Body)
	}
}

// awaitPool waits until so many machines wait, and returns the folders of all machines.
func awaitPool(h *harness.Harness, ready int) []string {
	h.T.Helper()
	var health struct {
		Limits struct{ Pools []vm.Pool }
	}
	for end := time.Now().Add(harness.Timeout); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		harness.Hurry(h.Data)
		a, err := h.Do("GET", "/healthz?verbose=1", "", nil)
		harness.Must(h.T, err)
		harness.Must(h.T, a.JSON(&health))
		if len(health.Limits.Pools) == 1 && health.Limits.Pools[0].Ready == ready {
			return machineFolders(h)
		}
	}
	h.T.Fatalf("got pools %+v, want %d machines that wait", health.Limits.Pools, ready)
	return nil
}

// machineFolders lists the folders of machines.
func machineFolders(h *harness.Harness) (ids []string) {
	h.T.Helper()
	entries, err := os.ReadDir(filepath.Join(h.Data, "vms"))
	harness.Must(h.T, err)
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids
}

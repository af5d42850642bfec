package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// Machines whose callbacks nobody accepts cost the daemon nothing once they are destroyed: 200 creations and destructions
// with room for two machines leave no goroutine, and nothing that a list shows.
func TestDeadReceiver(t *testing.T) {
	t.Parallel()
	const pairs, slack = 200, 30 // connections of clients have goroutines too
	h := harness.NewProgram(t, harness.MemoryDaemon(t), nil, "-vms", "2", "-memory-reserve", "1mib")
	images := harness.MemoryImages(t)
	h.Serve(images)
	fields := harness.SmallVM(map[string]any{"callback_url": "http://" + harness.FreeAddress(t) + "/dead"})
	body := h.ImageOf("image0", images["image0"]).Body(fields)
	goroutines := func() int {
		a, err := h.Do("GET", "/metrics", "", nil)
		harness.Must(t, err)
		m := regexp.MustCompile(`(?m)^go_goroutines (\d+)$`).FindSubmatch(a.Body)
		if m == nil {
			t.Fatalf("got no go_goroutines in %s", a.Body)
		}
		n, err := strconv.Atoi(string(m[1]))
		harness.Must(t, err)
		return n
	}
	before := goroutines()
	for range pairs {
		v, _, err := h.VM("POST", "/vms", body, http.StatusAccepted)
		harness.Must(t, err)
		_, _, err = h.VM("DELETE", "/vms/"+v.ID, nil, http.StatusNoContent)
		harness.Must(t, err)
	}
	all, err := h.List()
	if err != nil || len(all) != 0 {
		t.Errorf("got %v, %v, want no machines", all, err)
	}
	for deadline := time.Now().Add(harness.Timeout); goroutines() > before+slack; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("got %d goroutines, %d before", goroutines(), before)
		}
	}
	var health vm.Health
	a, err := h.Do("GET", "/healthz", "", nil)
	harness.Must(t, err)
	harness.Must(t, a.JSON(&health))
	if health.Machines != 0 || health.Error != nil {
		t.Errorf("got %+v, want no machines and no error", health)
	}
	harness.Must(t, h.Stop())
	left, err := filepath.Glob(filepath.Join(h.Data, "vms", "*.tombstone.json"))
	if err != nil || len(left) > pairs {
		t.Errorf("got %d tombstones, %v", len(left), err)
	}
	for _, path := range left { // whose callbacks would be sent for a day
		harness.Must(t, os.Remove(path))
	}
}

package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// describedDriver has a description. Its Ready returns err.
type describedDriver struct {
	smallHost
	err error
}

func (d describedDriver) Ready(context.Context) error { return d.err }

func (describedDriver) Describe(context.Context) map[string]string {
	return map[string]string{"version": "9.9", "acceleration": "tcg: no KVM"}
}

// GET /healthz?verbose=1 returns versions, acceleration, disk space, limits and networks.
func TestVerboseHealth(t *testing.T) {
	s := serve(t, func(o *vm.Options) { o.Driver = describedDriver{smallHost: smallHost{&vmtest.Driver{}}} })
	s.do("POST", "/vms", s.seedBody())
	status, body := s.text("/healthz?verbose=1")
	var h struct {
		Status, Version, Go, Hypervisor string
		Details                         map[string]string
		Machines                        int
		Disk                            map[string]int64
		Limits                          vm.Capacity
		Networks                        map[string]vm.NetworkState
	}
	must(t, json.Unmarshal([]byte(body), &h))
	if status != http.StatusOK || h.Status != "ok" || h.Version != "test" || !strings.HasPrefix(h.Go, "go1.") || h.Hypervisor != "memory" ||
		h.Details["version"] != "9.9" || h.Details["acceleration"] != "tcg: no KVM" || h.Machines != 1 ||
		h.Disk["free_bytes"] <= 0 || h.Disk["total_bytes"] < h.Disk["free_bytes"] || h.Disk["reserve_bytes"] != 1<<30 ||
		!h.Networks["nat"].Available || h.Networks["bridged"].Available || h.Networks["bridged"].Reason == "" {
		t.Errorf("got %d %s", status, body)
	}
	if want := (vm.Capacity{CPUs: 8, Memory: "8.0gib", Promised: "1.0gib", Creations: 16}); !reflect.DeepEqual(h.Limits, want) {
		t.Errorf("limits: got %+v, want %+v", h.Limits, want)
	}
}

// If no machine can be created, health returns 503 and the reason.
func TestUnavailable(t *testing.T) {
	notInstalled := &vm.Error{Code: vm.CodeHypervisorUnavailable, Message: "QEMU is not installed; install qemu-system-x86"}
	noHypervisor := config{vm: []func(*vm.Options){func(o *vm.Options) { o.Driver = describedDriver{smallHost{&vmtest.Driver{}}, notInstalled} }}}
	diskFull := config{}
	diskFull.image.Limits.FreeBytes = 1 << 60
	for name, c := range map[string]struct {
		config
		want []string
	}{
		"hypervisor missing":         {noHypervisor, []string{`"hypervisor-unavailable"`, "install qemu-system-x86", `"free_bytes"`}},
		"disk below its reserve":     {diskFull, []string{`"disk-full"`, "-disk-reserve keeps 1.0 EiB"}},
		"both: the hypervisor first": {config{vm: noHypervisor.vm, image: diskFull.image}, []string{`"hypervisor-unavailable"`, `"reserve_bytes"`}},
	} {
		status, body := c.serve(t).text("/healthz")
		if status != http.StatusServiceUnavailable || !strings.Contains(body, `"status": "unavailable"`) {
			t.Errorf("%s: got %d %s, want 503", name, status, body)
		}
		for _, want := range c.want {
			if !strings.Contains(body, want) {
				t.Errorf("%s: got %s, want %q in it", name, body, want)
			}
		}
	}
}

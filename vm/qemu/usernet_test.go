package qemu_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/qemu"
)

// A hostonly guest on the user network is reached at its forwarded ports and
// reaches nothing itself. A nat guest reaches what the host does.
func TestHostOnlyOnUserNetwork(t *testing.T) {
	t.Parallel()
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the host's own") }))
	defer host.Close()
	_, port, _ := net.SplitHostPort(host.Listener.Addr().String())
	loopback := net.JoinHostPort("10.0.2.2", port)

	r := newRig(t)
	o := options(r.data)
	o.Forward = nil
	err := r.Close()
	if err != nil {
		t.Fatal(err)
	}
	if r.Driver, err = qemu.Open(o); err != nil {
		t.Fatal(err)
	}
	gold := r.tinyvm()
	for kind, reaches := range map[vm.NetworkType]bool{vm.HostOnly: false, vm.NAT: true} {
		m := r.machine()
		m.CPUs, m.Memory, m.Network, m.Forward = 1, 128, kind, []int{80, 22, 8080}
		st, page := r.bootsFrom(m, gold, func(st vm.Status) string { return fmt.Sprintf("http://127.0.0.1:%d/", hostPort(st, 80)) })
		if !strings.Contains(page, st.MAC) || st.IP != "127.0.0.1" {
			t.Errorf("%s: got %+v and page %q, want 127.0.0.1 and the MAC address on the page", kind, st, page)
		}
		if !slices.Equal(guestPorts(st), []int{22, 80, 8080}) {
			t.Errorf("%s: got forwards %v, want of 22, 80 and 8080, each once", kind, st.Forwards)
		}
		if !slices.Contains(st.Addresses, "10.0.2.15") {
			t.Errorf("%s: got addresses %v, want 10.0.2.15 among them", kind, st.Addresses)
		}
		if got, ok := guestGet(t, m, loopback); ok != reaches {
			t.Errorf("%s: got %q from the host's loopback, want that it is reached: %t", kind, got, reaches)
		}
		if err := r.Destroy(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
}

func hostPort(st vm.Status, guest int) int {
	for _, f := range st.Forwards {
		if f.Guest == guest {
			return f.Host
		}
	}
	return 0
}

func guestPorts(st vm.Status) (ports []int) {
	for _, f := range st.Forwards {
		ports = append(ports, f.Guest)
	}
	return ports
}

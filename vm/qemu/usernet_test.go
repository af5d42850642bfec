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
)

// A hostonly guest on the user network is reached at its forwarded ports and
// reaches nothing itself.
func TestHostOnlyOnUserNetwork(t *testing.T) {
	t.Parallel()
	loopback := serveOnLoopback(t)
	r := newTestDriver(t)
	o := options(r.data)
	o.Forward = nil
	err := r.Close()
	if err != nil {
		t.Fatal(err)
	}
	if r.Driver, err = openDriver(o); err != nil {
		t.Fatal(err)
	}
	m := r.machine()
	m.CPUs, m.Memory, m.Network, m.Forward = 1, 128, vm.HostOnly, []int{80, 22, 8080}
	st, page := r.bootsFrom(m, r.tinyvm(), pageAt)
	if !strings.Contains(page, st.MAC) || st.IP != "127.0.0.1" {
		t.Errorf("got %+v and page %q, want 127.0.0.1 and the MAC address on the page", st, page)
	}
	if !slices.Equal(guestPorts(st), []int{22, 80, 8080}) {
		t.Errorf("got forwards %v, want of 22, 80 and 8080, each once", st.Forwards)
	}
	if !slices.Contains(st.Addresses, "10.0.2.15") {
		t.Errorf("got addresses %v, want 10.0.2.15 among them", st.Addresses)
	}
	if got, ok := guestGet(t, m, loopback); ok {
		t.Errorf("got %q from the host's loopback, want nothing", got)
	}
}

// serveOnLoopback serves a page on the host's loopback address, and returns where
// a guest on the user network finds that.
func serveOnLoopback(t *testing.T) (address string) {
	t.Helper()
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the host's own") }))
	t.Cleanup(host.Close)
	_, port, _ := net.SplitHostPort(host.Listener.Addr().String())
	return net.JoinHostPort("10.0.2.2", port)
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

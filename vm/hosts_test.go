package vm_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"osx-builder/vm"
)

func hosts(t *testing.T, allow, deny string) *vm.Hosts {
	t.Helper()
	h, err := vm.NewHosts(strings.Fields(allow), strings.Fields(deny))
	must(t, err)
	return h
}

// Each address is checked when it is dialled.
func TestHostsOnAddresses(t *testing.T) {
	for _, c := range []struct{ allow, deny, good, bad string }{
		{"", "", "127.0.0.1 [::1] 10.1.2.3 172.16.0.1 192.168.9.9 100.64.0.1 [fd12::1] 93.184.216.34 [2606:2800::1] [::ffff:10.0.0.1] [64:ff9b::5db8:d822]", "169.254.169.254 169.254.0.1 [fe80::1] [fe80::1%eth0] [fd00:ec2::254] [fd20:ce::254] 100.100.100.200 192.0.0.192 168.63.129.16 [::ffff:169.254.169.254] [64:ff9b::a9fe:a9fe] 0.0.0.0 [::] 224.0.0.1 255.255.255.255 [ff02::1] [2002:a9fe:a9fe::1]"},
		{"0.0.0.0/0 ::/0", "", "127.0.0.1 [::1]", "169.254.169.254 100.100.100.200 [fe80::1]"},
		{"169.254.10.0/24 fe80::/64", "", "169.254.10.1 [fe80::1%eth0]", "169.254.169.254 10.0.0.1 [fe80:1::1]"},
		{"100.100.100.200 169.254.169.254 fd00:ec2::254", "", "100.100.100.200 169.254.169.254 [fd00:ec2::254]", "100.100.100.201"},
		{"10.0.0.0/8", "10.9.0.0/16", "10.8.0.1 [::ffff:10.8.0.1]", "10.9.0.1 [::ffff:10.9.0.1] 11.0.0.1 127.0.0.1 [::1]"},
		{"", "127.0.0.0/8 ::1 10.0.0.7", "10.0.0.6", "127.0.0.9 [::1] 10.0.0.7 [::ffff:127.0.0.1]"},
		{"images.example", "10.0.0.0/8", "127.0.0.1 93.184.216.34", "10.0.0.1 169.254.169.254"}, // the name was matched before
	} {
		h := hosts(t, c.allow, c.deny)
		for addr := range strings.FieldsSeq(c.good) {
			if err := h.Control("tcp", addr+":80", nil); err != nil {
				t.Errorf("allow %q, deny %q: %s is refused: %v", c.allow, c.deny, addr, err)
			}
		}
		for addr := range strings.FieldsSeq(c.bad) {
			var known *vm.Error
			if err := h.Control("tcp", addr+":80", nil); !errors.As(err, &known) || known.Code != vm.CodeHostDenied {
				t.Errorf("allow %q, deny %q: %s: got %v, want %s", c.allow, c.deny, addr, err, vm.CodeHostDenied)
			}
		}
	}
}

// A URL that is known to be denied without dialling is refused with its field.
func TestHostsAtCreation(t *testing.T) {
	for _, c := range []struct{ allow, deny, host, field string }{
		{"", "", "169.254.169.254", "image.url"},
		{"", "", "[fe80::1]", "image.url"},
		{"", "evil.example", "EVIL.example.", "image.url"},
		{"", ".evil.example", "a.b.evil.example", "image.url"},
		{"images.example", "", "other.example", "image.url"},
		{"*.example", "", "example", "image.url"},
		{"images.example 10.0.0.0/8", "", "11.0.0.1", "image.url"},
		{"images.example 10.0.0.0/8", "", "name.example", "image.url"},
		{"images.example", "", "10.0.0.1", "image.url"},
		{"", "hooks.example", "images.example", "callback_url"},
		{"images.example", "", "images.example", "callback_url"},
		{"images.example .hooks.example", "", "images.example", "callback_url"},
	} {
		h := newHarness(t)
		h.options = func(o *vm.Options) { o.Hosts = hosts(t, c.allow, c.deny) }
		h.open()
		q := h.request()
		q.Image.URL, q.CallbackURL = "http://"+c.host+"/i", ""
		if c.field == "callback_url" {
			q.CallbackURL = "http://hooks.example/"
		}
		_, err := h.vms.Create(t.Context(), q, "")
		var known *vm.Error
		if !errors.As(err, &known) || known.Code != vm.CodeHostDenied || known.Field != c.field {
			t.Errorf("allow %q, deny %q: %s: got %v, want %s of %s", c.allow, c.deny, c.host, err, vm.CodeHostDenied, c.field)
		}
		if files := h.files(); len(files) > 0 {
			t.Errorf("%s: got files %v, want none", c.host, files)
		}
		h.close()
	}
}

// A list of addresses only applies to what a name resolves to. Here the name
// resolves to loopback, at creation and for its callback.
func TestHostsOnResolvedNames(t *testing.T) {
	h := newHarness(t)
	deny := hosts(t, "", "127.0.0.0/8 ::1")
	h.options = func(o *vm.Options) { o.Hosts = deny }
	h.control = deny.Control
	h.open()
	q := h.request()
	q.Image.URL = strings.Replace(q.Image.URL, "127.0.0.1", "localhost", 1)
	q.CallbackURL = strings.Replace(q.CallbackURL, "127.0.0.1", "localhost", 1)
	v := h.wait(h.create(q).ID)
	if v.Phase != vm.Failed || v.Error == nil || v.Error.Code != vm.CodeHostDenied || !strings.Contains(v.Error.Message, "-deny-hosts") {
		t.Errorf("got phase %s, error %v, want failed with %s", v.Phase, v.Error, vm.CodeHostDenied)
	}
	if h.downloads.Load() != 0 || h.received() != 0 {
		t.Errorf("got %d downloads and %d callbacks, want none", h.downloads.Load(), h.received())
	}
	must(t, h.vms.Destroy(t.Context(), v.ID))
}

// A redirect is checked like the URL itself.
func TestHostsOnRedirects(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skipf("this host has no second loopback address: %v", err) // macOS
	}
	asked := make(chan struct{}, 1)
	secret := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		_, _ = io.WriteString(w, "secret")
	}))
	must(t, secret.Listener.Close())
	secret.Listener = inner
	secret.Start()
	defer secret.Close()
	h := newHarness(t)
	h.serve = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, secret.URL+"/latest/meta-data", http.StatusFound)
	}
	deny := hosts(t, "", "127.0.0.2")
	h.options = func(o *vm.Options) { o.Hosts = deny }
	h.control = deny.Control
	h.open()
	v := h.wait(h.create(h.request()).ID)
	if v.Error == nil || v.Error.Code != vm.CodeHostDenied || len(asked) != 0 {
		t.Errorf("got error %v and %d requests, want %s and none", v.Error, len(asked), vm.CodeHostDenied)
	}
}

// An invalid list is refused, not ignored.
func TestBadHosts(t *testing.T) {
	for _, word := range []string{"", "*", "http://a.example", "10.0.0.0/33", "a b", "a:80", "user@a"} {
		if _, err := vm.NewHosts([]string{word}, nil); err == nil {
			t.Errorf("%q is taken for a host", word)
		}
	}
}

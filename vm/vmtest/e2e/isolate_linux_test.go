package e2e_test

import (
	"os"
	"strings"
	"testing"

	"osx-builder/vm/vmtest/e2e"
)

// Whatever a namespace inherits from its host, tests begin with the kernel's
// defaults and an empty /run.
func TestNamespaceDefaults(t *testing.T) {
	if !e2e.IsolateTest(t) {
		return
	}
	settings := map[string]struct{ host, want string }{
		"/proc/sys/net/ipv4/ip_forward":             {"1", "0"},
		"/proc/sys/net/ipv4/conf/all/forwarding":    {"1", "0"},
		"/proc/sys/net/ipv4/conf/all/rp_filter":     {"1", "0"},
		"/proc/sys/net/ipv4/conf/lo/arp_ignore":     {"2", "0"},
		"/proc/sys/net/ipv4/conf/default/proxy_arp": {"1", "0"},
	}
	for path, s := range settings {
		if err := os.WriteFile(path, []byte(s.host), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("/run/osxb-other", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e2e.InitNamespaces(); err != nil {
		t.Fatal(err)
	}
	for path, s := range settings {
		if got, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(got)) != s.want {
			t.Errorf("%s: got %q, %v, want %s", path, got, err, s.want)
		}
	}
	if files, err := os.ReadDir("/run"); err != nil || len(files) != 0 {
		t.Errorf("/run: got %v, %v, want no files", files, err)
	}
}

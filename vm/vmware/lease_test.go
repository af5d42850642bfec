package vmware_test

import (
	"testing"
	"time"

	"osx-builder/vm/vmware"
)

func TestLease(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	entry := func(ip, mac, end string) string {
		return "lease " + ip + " {\n\tstarts 1 2026/05/04 11:00:00;\n\tends " + end + ";\n\thardware ethernet " + mac + ";\n\tclient-hostname \"x\";\n}\n"
	}
	const (
		nic   = "00:0c:29:aa:bb:cc"
		other = "00:0c:29:00:00:00"
		later = "1 2026/05/04 13:00:00"
		past  = "1 2026/05/04 11:30:00"
	)
	for name, c := range map[string]struct{ file, want string }{
		"none":                        {"# All times in this file are in UTC\n", ""},
		"one":                         {entry("172.16.1.2", nic, later), "172.16.1.2"},
		"upper case":                  {entry("172.16.1.2", "00:0C:29:AA:BB:CC", later), "172.16.1.2"},
		"another NIC's":               {entry("172.16.1.2", other, later), ""},
		"ended":                       {entry("172.16.1.2", nic, past), ""},
		"never ends":                  {entry("172.16.1.2", nic, "never"), "172.16.1.2"},
		"the last of two":             {entry("172.16.1.2", nic, later) + entry("172.16.1.3", nic, later), "172.16.1.3"},
		"later leased to another NIC": {entry("172.16.1.2", nic, later) + entry("172.16.1.2", other, later), ""},
		"ended by a later entry":      {entry("172.16.1.2", nic, later) + entry("172.16.1.2", nic, past), ""},
		"abandoned":                   {"lease 172.16.1.2 {\n ends " + later + ";\n hardware ethernet " + nic + ";\n abandoned;\n}\n", ""},
		"cut off":                     {"lease 172.16.1.2 {\n ends " + later + ";\n hardware ethernet " + nic + ";\n", ""},
		"no address":                  {entry("nowhere", nic, later), ""},
		"malformed lines":             {"lease\n}\n{\nhardware ethernet\nends;\n;;;\x00\xff\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := vmware.Lease([]byte(c.file), nic, now); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if got := vmware.Lease([]byte(entry("172.16.1.2", nic, later)), "", now); got != "" {
		t.Errorf("without a NIC: got %q, want none", got)
	}
}

package qemu

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/qemu/qmp"
)

func addresses(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// The guest knows best which address it has, but cannot have every one.
func TestChooseAddress(t *testing.T) {
	host := []netip.Prefix{
		netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("10.5.0.1/24"), netip.MustParsePrefix("192.168.1.9/24"),
	}
	for name, test := range map[string]struct {
		network vm.NetworkType
		told    []netip.Addr
		lease   string
		want    string
	}{
		"both agree":                    {vm.NAT, addresses("10.5.0.7"), "10.5.0.7", "10.5.0.7"},
		"the lease among others":        {vm.NAT, addresses("10.5.0.99", "10.5.0.7"), "10.5.0.7", "10.5.0.7"},
		"another of the subnet":         {vm.NAT, addresses("10.5.0.99"), "10.5.0.7", "10.5.0.99"},
		"another before a lease":        {vm.HostOnly, addresses("10.5.0.99"), "", "10.5.0.99"},
		"the host's":                    {vm.NAT, addresses("10.5.0.1"), "10.5.0.7", "10.5.0.7"},
		"the host's other":              {vm.Bridged, addresses("192.168.1.9"), "", ""},
		"one out of reach":              {vm.NAT, addresses("8.8.8.8"), "10.5.0.7", "10.5.0.7"},
		"one out of reach, no lease":    {vm.NAT, addresses("8.8.8.8"), "", ""},
		"one of another subnet":         {vm.NAT, addresses("192.168.1.20"), "10.5.0.7", "10.5.0.7"},
		"IPv6 on a network without it":  {vm.NAT, addresses("2001:db8::7"), "10.5.0.7", "10.5.0.7"},
		"no agent":                      {vm.NAT, nil, "10.5.0.7", "10.5.0.7"},
		"neither":                       {vm.NAT, nil, "", ""},
		"a LAN's":                       {vm.Bridged, addresses("172.20.1.1"), "", "172.20.1.1"},
		"a LAN's, not the neighbour's":  {vm.Bridged, addresses("172.20.1.1"), "172.20.1.9", "172.20.1.1"},
		"a LAN's of IPv6":               {vm.Bridged, addresses("2001:db8::7"), "", "2001:db8::7"},
		"neighbour table without agent": {vm.Bridged, nil, "172.20.1.9", "172.20.1.9"},
	} {
		t.Run(name, func(t *testing.T) {
			var lease netip.Addr
			if test.lease != "" {
				lease = netip.MustParseAddr(test.lease)
			}
			got := chooseAddress(test.network, test.told, lease, host)
			if got.IsValid() != (test.want != "") || got.IsValid() && got.String() != test.want {
				t.Errorf("got %v, want %q", got, test.want)
			}
		})
	}
}

const interfaces = `{"return": [
	{"name": "lo", "hardware-address": "00:00:00:00:00:00", "ip-addresses": [{"ip-address": "127.0.0.1"}]},
	{"name": "eth1", "hardware-address": "52:00:00:00:00:02", "ip-addresses": [{"ip-address": "10.9.9.9"}]},
	{"name": "eth0", "hardware-address": "52:AB:00:00:00:01", "ip-addresses": [
		{"ip-address": "fe80::1"}, {"ip-address": "2001:db8::1"}, {"ip-address": "169.254.1.1"}, {"ip-address": "10.1.2.3"}]}]}` + "\n"

// The addresses of one card are known by its MAC address, IPv4 first.
func TestCardAddresses(t *testing.T) {
	var reply struct{ Return []qmp.Interface }
	if err := json.Unmarshal([]byte(interfaces), &reply); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(cardAddresses(reply.Return, "52:ab:00:00:00:01"))
	if want := "[10.1.2.3 2001:db8::1]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// All interfaces count, once each, and a guest cannot list addresses for ever.
func TestAllAddresses(t *testing.T) {
	var reply struct{ Return []qmp.Interface }
	if err := json.Unmarshal([]byte(interfaces), &reply); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(allAddresses(append(reply.Return, reply.Return...)))
	if want := "[10.9.9.9 2001:db8::1 10.1.2.3]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	var many qmp.Interface
	for i := range 1000 {
		many.Addresses = append(many.Addresses, struct {
			IP string `json:"ip-address"`
		}{fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)})
	}
	if got := len(allAddresses([]qmp.Interface{many})); got != maxAddresses {
		t.Errorf("got %d addresses, want %d", got, maxAddresses)
	}
}

package config_test

import (
	"strings"
	"testing"

	"osx-builder/config"
)

// Network settings come from every source. -clean-network is only a flag, so that a forgotten variable removes no
// networks.
func TestNetworkSettings(t *testing.T) {
	vars := env{
		"OSX_BUILDER_BRIDGE": "br0", "OSX_BUILDER_NAT_SUBNET": "10.20.30.77/24", "OSX_BUILDER_GUEST_ISOLATION": "true",
		"OSX_BUILDER_CLEAN_NETWORK": "true",
	}
	c, err := config.Load(nil, vars.get)
	if err != nil {
		t.Fatal(err)
	}
	if c.Bridge != "br0" || c.NATSubnet != "10.20.30.0/24" || !c.Isolate || c.CleanNetwork {
		t.Errorf("got %+v, want br0, 10.20.30.0/24, isolation, and nothing removed", c)
	}
	c, err = config.Load([]string{"-bridge", "lan", "-nat-subnet", "172.16.0.0/12", "-clean-network"}, env{}.get)
	if err != nil {
		t.Fatal(err)
	}
	if c.Bridge != "lan" || c.NATSubnet != "172.16.0.0/12" || c.Isolate || !c.CleanNetwork {
		t.Errorf("got %+v, want lan, 172.16.0.0/12, no isolation, and networks removed", c)
	}
}

func TestInvalidNetworkSettings(t *testing.T) {
	for value, want := range map[string]string{
		"-bridge=a bridge":            "name of a network device",
		"-bridge=../br0":              "name of a network device",
		"-bridge=longer-than-it-may":  "at most 15 bytes",
		"-nat-subnet=10.20.30.0":      "as in 10.20.30.0/24",
		"-nat-subnet=10.20.30.0/30":   "from /8 to /29",
		"-nat-subnet=0.0.0.0/0":       "from /8 to /29",
		"-nat-subnet=fd00::/64":       "IPv4",
		"-guest-isolation=some":       "true or false",
		"-nat-subnet=10.20.30.300/24": "10.20.30.300/24",
	} {
		if _, err := config.Load([]string{value}, env{}.get); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want %q in it", value, err, want)
		}
	}
}

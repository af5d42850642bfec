package config_test

import (
	"slices"
	"testing"

	"osx-builder/config"
)

// The verb check-vmware becomes a flag, and other arguments stay as they are.
func TestArgs(t *testing.T) {
	for _, c := range []struct{ args, want []string }{
		{nil, nil},
		{[]string{"list"}, []string{"list"}},
		{[]string{"-data", "x"}, []string{"-data", "x"}},
		{[]string{"check-vmware"}, []string{"-check-vmware=own"}},
		{[]string{"check-vmware", "-vmrun", "/x"}, []string{"-check-vmware=own", "-vmrun", "/x"}},
		{[]string{"check-vmware", "a.vmx", "-vmrun", "/x"}, []string{"-check-vmware=a.vmx", "-vmrun", "/x"}},
	} {
		if got := config.Args(c.args); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.args, got, c.want)
		}
	}
}

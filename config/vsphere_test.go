package config_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"osx-builder/config"
)

const planted = "planted-Passw0rd"

// vsphereArgs are enough for -driver vsphere, if the password is in GOVC_PASSWORD.
var vsphereArgs = strings.Fields("-driver vsphere -vsphere-url https://vc.example -vsphere-username builder -vsphere-network nat=Net")

// The variables of govc are the defaults of the driver's settings, and only that driver reads them.
func TestVSphereDefaults(t *testing.T) {
	govc := env{
		"GOVC_URL": "other:" + planted + "@vc.example", "GOVC_DATACENTER": "DC", "GOVC_RESOURCE_POOL": "Pool", "GOVC_FOLDER": "F",
		"GOVC_DATASTORE": "DS", "GOVC_NETWORK": "Net", "GOVC_TLS_CA_CERTS": "/ca.pem",
	}
	want := config.VSphere{
		URL: "https://vc.example/sdk", Username: "other", Datacenter: "DC", Pool: "Pool", Folder: "F", Datastore: "DS",
		Networks: map[string]string{"nat": "Net"}, CAFile: "/ca.pem",
	}
	c, err := config.Load([]string{"-driver", "vsphere"}, govc.get)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, c.VSphere, cmpopts.IgnoreFields(config.VSphere{}, "ReadPassword")); diff != "" {
		t.Errorf("the variables of govc (-want +got):\n%s", diff)
	}
	if got, err := c.VSphere.ReadPassword(); err != nil || got != planted {
		t.Errorf("the password in GOVC_URL: got %q, %v", got, err)
	}
	govc["GOVC_USERNAME"] = "builder"
	c, err = config.Load([]string{"-driver", "vsphere", "-vsphere-folder", "G", "-vsphere-network", "nat=A, hostonly=B"}, govc.get)
	if err != nil || c.VSphere.Username != "builder" || c.VSphere.Folder != "G" || c.VSphere.Networks["nat"] != "A" || c.VSphere.Networks["hostonly"] != "B" {
		t.Errorf("got %+v, %v, want the flags to win over the variables, and GOVC_USERNAME over GOVC_URL", c.VSphere, err)
	}
	govc["GOVC_URL"] = "http://[broken"
	if c, err = config.Load(nil, govc.get); err != nil || c.VSphere.URL != "" {
		t.Errorf("with another driver: got %q, %v, want GOVC_URL to be ignored", c.VSphere.URL, err)
	}
}

// A password file is read each time, and its first line is the password as it is.
func TestVSpherePasswordFile(t *testing.T) {
	name := file(t, "# "+planted+"\nsecond line\n")
	c, err := config.Load(append(vsphereArgs, "-vsphere-password-file", name), env{"GOVC_PASSWORD": "not this"}.get)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.VSphere.ReadPassword(); err != nil || got != "# "+planted {
		t.Errorf("got %q, %v, want the first line", got, err)
	}
	if err := os.WriteFile(name, []byte("\n"+planted), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := c.VSphere.ReadPassword(); err == nil || strings.Contains(err.Error(), planted) {
		t.Errorf("with an empty first line: got %q, %v, want an error without the file's text", got, err)
	}
}

func TestVSphereErrors(t *testing.T) {
	with := func(args ...string) []string { return append(vsphereArgs[:len(vsphereArgs):len(vsphereArgs)], args...) }
	password := env{"GOVC_PASSWORD": planted}
	tests := map[string]struct {
		args []string
		env  env
		says []string
	}{
		"nothing":              {[]string{"-driver", "vsphere"}, nil, []string{"-vsphere-url"}},
		"no account":           {[]string{"-driver", "vsphere", "-vsphere-url", "https://a"}, nil, []string{"-vsphere-username"}},
		"no password":          {vsphereArgs, nil, []string{"-vsphere-password-file", "chmod 600"}},
		"no network":           {vsphereArgs[:6], password, []string{"-vsphere-network nat=NAME"}},
		"two places":           {with("-vsphere-cluster", "C", "-vsphere-pool", "P"), password, []string{`"C"`, `"P"`, "keep one"}},
		"a password in a flag": {with("-vsphere-url", "https://u:"+planted+"@vc"), password, []string{"must not contain a user", "(hidden)"}},
		"no TLS":               {with("-vsphere-url", "http://vc"), password, []string{"https URL"}},
		"GOVC_INSECURE alone":  {vsphereArgs, env{"GOVC_PASSWORD": planted, "GOVC_INSECURE": "1"}, []string{"GOVC_INSECURE", "-vsphere-insecure"}},
		"no such network type": {with("-vsphere-network", "wifi=X"), password, []string{`"wifi=X"`, "bridged=NAME"}},
		"a type twice":         {with("-vsphere-network", "nat=X,nat=Y"), password, []string{"nat is listed twice"}},
		"half a thumbprint":    {with("-vsphere-thumbprint", "AA:BB"), password, []string{"SHA-256", "openssl"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := config.Load(tc.args, tc.env.get)
			if err == nil {
				t.Fatal("got no error")
			}
			for _, part := range tc.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got %q, want %q in it", err, part)
				}
			}
			if strings.Contains(err.Error(), planted) {
				t.Errorf("the error has the password: %q", err)
			}
		})
	}
	if _, err := config.Load(with("-vsphere-insecure"), env{"GOVC_PASSWORD": planted, "GOVC_INSECURE": "1"}.get); err != nil {
		t.Errorf("GOVC_INSECURE with -vsphere-insecure: %v", err)
	}
}

// -print-config has no password, wherever that comes from.
func TestPrintHidesThePassword(t *testing.T) {
	c, err := config.Load([]string{"-driver", "vsphere", "-print-config"}, env{
		"GOVC_URL": "builder:" + planted + "@vc.example", "GOVC_PASSWORD": planted, "GOVC_NETWORK": "Net",
	}.get)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), planted) || !strings.Contains(b.String(), "# variable GOVC_URL\nvsphere-url = https://vc.example/sdk\n") {
		t.Errorf("got %s, want the URL without the password", b.String())
	}
}

package config_test

import (
	"strings"
	"testing"

	"osx-builder/config"
)

func TestServerSettings(t *testing.T) {
	c, err := config.Load(
		strings.Fields("-listen 0.0.0.0:1 -token-file /t -tls-cert /c -tls-key /k -debug-listen [::1]:6060 -host-names a.example -host-names b -vms-per-token 3 -memory-per-token 2GiB"), env{}.get)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "0.0.0.0:1" || c.TokenFile != "/t" || c.TLSCert != "/c" || c.TLSKey != "/k" || c.DebugListen != "[::1]:6060" || c.VMsPerToken != 3 || c.MemoryPerToken != 2<<30 || strings.Join(c.HostNames, " ") != "a.example b" {
		t.Errorf("got %+v, want every flag's value", c)
	}
	vars := env{"OSX_BUILDER_LISTEN": "unix:/run/o.sock", "OSX_BUILDER_TOKEN_FILE": "~/t", "OSX_BUILDER_TLS_CERT": "~/c", "OSX_BUILDER_TLS_KEY": "~/k", "OSX_BUILDER_DEBUG_LISTEN": "localhost:0"}
	if c, err = config.Load(nil, vars.get); err != nil {
		t.Fatal(err)
	}
	if c.Listen != "unix:/run/o.sock" || c.TokenFile != "/home/ci/t" || c.TLSCert != "/home/ci/c" || c.TLSKey != "/home/ci/k" || c.DebugListen != "localhost:0" {
		t.Errorf("got %+v, want every variable's value", c)
	}
}

func TestInvalidServerSettings(t *testing.T) {
	for args, want := range map[string]string{
		"-listen unix:o.sock":                             "absolute path",
		"-host-names *.example.com":                       "as in build.example.com",
		"-host-names http://a":                            "as in build.example.com",
		"-listen unix:":                                   "absolute path",
		"-listen unix:/run/":                              "absolute path",
		"-listen unix:/" + strings.Repeat("x", 103):       "at most 103 bytes",
		"-listen 0.0.0.0:1":                               "-token-file",
		"-tls-cert /c":                                    "-tls-key",
		"-vms-per-token 1":                                "add -token-file",
		"-memory-per-token 1GiB":                          "add -token-file",
		"-vms-per-token -1 -token-file /t":                "whole number from 0 to 100000",
		"-tls-key /k":                                     "-tls-cert",
		"-debug-listen 0.0.0.0:6060":                      "only this host can reach",
		"-debug-listen host.example:6060":                 "only this host can reach",
		"-debug-listen unix:/run/o.sock":                  "port from 0 to 65535",
		"-debug-listen 6060":                              "host:port",
		"-insecure -listen 0.0.0.0:1 -debug-listen :6060": "only this host can reach",
	} {
		if _, err := config.Load(strings.Fields(args), env{}.get); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want %q in it", args, err, want)
		}
	}
}

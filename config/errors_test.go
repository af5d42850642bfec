package config_test

import (
	"strings"
	"testing"

	"osx-builder/config"
)

// Without authentication the daemon listens only on loopback addresses, unless the operator allows more.
func TestLoadRequiresLoopback(t *testing.T) {
	for listen, ok := range map[string]bool{
		"127.0.0.1:1": true, "127.255.0.9:1": true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true, "localhost:1": true, "LocalHost:1": true,
		":1": false, "0.0.0.0:1": false, "[::]:1": false, "192.168.1.1:1": false, "[fe80::1%eth0]:1": false,
		"localhost.example:1": false, "builder:1": false, "127.0.0.1.example:1": false, "127.1:1": false,
	} {
		t.Run(listen, func(t *testing.T) {
			_, err := config.Load([]string{"-listen", listen}, env{}.get)
			if ok != (err == nil) {
				t.Errorf("got %v, want accepted: %v", err, ok)
			}
			if err != nil && (!strings.Contains(err.Error(), "-insecure") || !strings.Contains(err.Error(), listen)) {
				t.Errorf("got %v, want the address and -insecure in it", err)
			}
			if _, err := config.Load([]string{"-insecure", "-listen", listen}, env{}.get); err != nil {
				t.Errorf("with -insecure: got %v, want it accepted", err)
			}
		})
	}
}

const emptyMD5 = "d41d8cd98f00b204e9800998ecf8427e"

func TestLoadErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		env  env
		file string
		want []string // in the error
	}{
		{"unknown flag", []string{"-speed", "9"}, nil, "", []string{"-speed", "-help"}},
		{"flag without its value", []string{"-listen"}, nil, "", []string{"-listen", "needs an argument"}},
		{"positional argument", []string{"-insecure", "false"}, nil, "", []string{`"false"`, "-insecure=false", "-help"}},
		{"bad flag", []string{"-creations", "0"}, nil, "", []string{`-creations "0" (flag)`, "whole number from 1 to 1000"}},
		{"too many creations", []string{"-creations", "1001"}, nil, "", []string{`-creations "1001" (flag)`}},
		{"no stall time", []string{"-image-stall", "0"}, nil, "", []string{`-image-stall "0" (flag)`, "from 1s to 1h"}},
		{"no host", []string{"-deny-hosts", "a.example,http://b.example"}, nil, "", []string{`"http://b.example"`, "10.0.0.0/8"}},
		{"half an address", []string{"-allow-hosts", "10.0"}, nil, "", []string{`"10.0"`}},
		{"a network too large", []string{"-allow-hosts", "10.0.0.0/33"}, nil, "", []string{`"10.0.0.0/33"`}},
		{"no time", []string{"-max-lifetime", "soon"}, nil, "", []string{`-max-lifetime "soon" (flag)`, "12h"}},
		{"too short a time", []string{"-max-lifetime", "10ms"}, nil, "", []string{"whole seconds from 1s"}},
		{"too long a time", []string{"-max-lifetime", "9000h"}, nil, "", []string{"to 8760h"}},
		{"no bits", []string{"-vix-host-options", "0x80000000"}, nil, "", []string{`-vix-host-options "0x80000000" (flag)`, "as in 0x200"}},
		{"negative bits", []string{"-vix-host-options=-1"}, nil, "", []string{"from 0 to 0x7fffffff"}},
		{"negative reserve", []string{"-memory-reserve", "-1gib"}, nil, "", []string{`-memory-reserve "-1gib" (flag)`}},
		{"a pool of no image", []string{"-pool", "cpus=2"}, nil, "", []string{`-pool "cpus=2" (flag)`, `"cpus=2" must be the checksum of an image`}},
		{"half a checksum", []string{"-pool", "sha256:d41d8cd9"}, nil, "", []string{`"sha256:d41d8cd9" must be the checksum`}},
		{"a pool without machines", []string{"-pool", emptyMD5 + " count=0"}, nil, "", []string{`"count=0": must be a whole number from 1 to 1000`}},
		{"a pool of small machines", []string{"-pool", emptyMD5 + " memory=4mib"}, nil, "", []string{`"memory=4mib": must be at least 32MiB`}},
		{"a pool that boots", []string{"-pool", emptyMD5 + " start=boot"}, nil, "", []string{`"start=boot": must be memory: only machines that start from memory`}},
		{"a pool with a name", []string{"-pool", emptyMD5 + " name=web"}, nil, "", []string{`"name=web": must be one of cpus=2, memory=1GiB, start=memory and count=4`}},
		{"two pools in one", nil, nil, "pool = " + emptyMD5 + " cpus=1 cpus=2", []string{"FILE, line 1", `"cpus" is given twice for one pool; separate pools by commas`}},
		{"no such unit", []string{"-print-unit", "upstart"}, nil, "", []string{`-print-unit "upstart" (flag)`, "systemd, launchd"}},
		{"bad variable", nil, env{"OSX_BUILDER_CREATIONS": "many"}, "", []string{`-creations "many" (variable OSX_BUILDER_CREATIONS)`}},
		{"bad entry", nil, nil, "\ncreations = few", []string{`-creations "few" (FILE, line 2)`}},
		{"all bad values at once", []string{"-driver", "xen"}, env{"OSX_BUILDER_NETWORK": "wifi"}, "log-format = xml", []string{
			`-driver "xen" (flag): must be one of auto, qemu, vix`, `-network "wifi" (variable OSX_BUILDER_NETWORK): must be one of auto, user, bridge`,
			`-log-format "xml" (FILE, line 1): must be one of text, json`,
		}},
		{"log level", []string{"-log-level", "INFO+2"}, nil, "", []string{"must be one of debug, info, warn, error"}},
		{"switch", []string{"-insecure=maybe"}, nil, "", []string{`-insecure "maybe" (flag): must be true or false`}},
		{"bad PORT", nil, env{"PORT": "http"}, "", []string{`-listen "127.0.0.1:http" (variable PORT)`, "port from 0 to 65535"}},
		{"large PORT", nil, env{"PORT": "65536"}, "", []string{"variable PORT"}},
		{"no port", []string{"-listen", "localhost"}, nil, "", []string{"must be host:port"}},
		{"no address", []string{"-listen", "http://localhost:80"}, nil, "", []string{`"http://localhost:80"`, "must be host:port"}},
		{"no host", []string{"-listen", "local host:80"}, nil, "", []string{"IP address or a host name"}},
		{"no zone", []string{"-listen", "[fe80::1%a\nb]:80"}, nil, "", []string{"IP address or a host name"}},
		{"port of the guest too large", []string{"-forward", "80,65536"}, nil, "", []string{`"65536" must be a port from 1 to 65535`}},
		{"port of the guest zero", []string{"-forward", "0"}, nil, "", []string{`"0" must be a port`}},
		{"port of the guest twice", []string{"-forward", "80", "-forward", "80"}, nil, "", []string{`"80,80"`, "port 80 is listed twice"}},
		{"port that is always forwarded", []string{"-forward", "22"}, nil, "", []string{"port 22 is always forwarded"}},
		{"size in SI units", []string{"-image-max-bytes", "256GB"}, nil, "", []string{`"256GB"`, "KiB, MiB"}},
		{"size without unit", []string{"-image-max-bytes", "256"}, nil, "", []string{"at least 1MiB"}},
		{"size too large", []string{"-image-max-bytes", "8192PiB"}, nil, "", []string{"less than 8192PiB"}},
		{"size too large for its unit", []string{"-image-max-bytes", "99999999PiB"}, nil, "", []string{"image-max-bytes"}},
		{"negative size", []string{"-image-max-bytes=-1GiB"}, nil, "", []string{"as in 256GiB"}},
		{"no home", nil, env{"HOME": ""}, "", []string{`-data "~/.osx-builder" (default)`, "HOME"}},
		{"home of another user", []string{"-data", "~bob/vms"}, nil, "", []string{"written as a full path"}},
		{"empty path", []string{"-data", ""}, nil, "", []string{"-data", "must name a path"}},
		{"path that ends in a space", []string{"-data", "/srv/vms "}, nil, "", []string{"begin or end with a space"}},
		{"path with a line break", []string{"-data", "/srv/a\nb"}, nil, "", []string{"control characters"}},
		{"no file", []string{"-config", "/nowhere/x.conf"}, nil, "", []string{"configuration file", "/nowhere/x.conf", "no such file"}},
		{"a folder for a file", []string{"-config", "/"}, nil, "", []string{"configuration file", "directory"}},
		{"an endless file", []string{"-config", "/dev/zero"}, nil, "", []string{"larger than 1048576 bytes"}},
		{"bad name of the file", []string{"-config", "~bob/x"}, nil, "", []string{`-config "~bob/x" (flag)`}},
		{"unknown entries, all at once", nil, nil, "speed = 9\n-listen = x\n", []string{"FILE, line 1", `"speed"`, "FILE, line 2", `"-listen"`}},
		{"flags that a file cannot have", nil, nil, "version = true\nconfig = x\n", []string{`"version"`, `"config"`}},
		{"not an entry", nil, nil, "insecure\n", []string{"FILE, line 1", `"insecure"`, "name = value"}},
		{"entry twice", nil, nil, "creations = 1\n#\ncreations = 2\n", []string{"FILE, line 3: creations is already set (FILE, line 1)"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			name := ""
			if tc.file != "" {
				name = file(t, tc.file)
				tc.args = append([]string{"-config", name}, tc.args...)
			}
			got, err := config.Load(tc.args, tc.env.get)
			if err == nil {
				t.Fatalf("got %+v, want an error", got)
			}
			for _, part := range tc.want {
				part = strings.ReplaceAll(part, "FILE", name)
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got error %q, want %q in it", err, part)
				}
			}
		})
	}
}

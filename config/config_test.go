package config_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"osx-builder/config"
)

// env is an environment. HOME is /home/ci unless it is set.
type env map[string]string

func (e env) get(name string) string {
	if value, ok := e[name]; ok || name != "HOME" {
		return value
	}
	return "/home/ci"
}

// file writes a configuration file and returns its name.
func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "osx-builder.conf")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// defaults returns the Config without any settings.
func defaults() config.Config {
	return config.Config{
		Listen:        "127.0.0.1:12345",
		Data:          "/home/ci/.osx-builder",
		Driver:        "auto",
		Network:       "auto",
		Creations:     16,
		VMs:           1000,
		MemoryReserve: 512 << 20,
		Start:         "boot",
		Connections:   1000,
		ImageMaxBytes: 256 << 30,
		LogFormat:     "text",
		LogLevel:      slog.LevelInfo,

		DiskReserve:      1 << 30,
		ImageMaxDownload: 64 << 30,
		ImageMaxEntries:  10_000,
		ImageMaxRatio:    200,
		ImageMaxDisk:     2 << 40,
		ImageStall:       time.Minute,
		ImageMinRate:     1 << 10,
		ImageMaxDepth:    16,
		ImageMaxPath:     1024,
		ImageMaxIdle:     5 * time.Minute,
	}
}

func TestLoadPrecedence(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		args   string // separated by spaces; FILE is the file's name
		env    env
		file   string
		change func(*config.Config) // to the defaults
	}{
		{name: "nothing is set", change: func(*config.Config) {}},
		{
			name: "every flag",
			args: "-listen [::1]:0 -data /srv/vms -driver qemu -network user -forward 80,443 -creations 3 -image-max-bytes 1.5GiB -log-format json -log-level debug -insecure -print-config " +
				"-image-max-download 1MiB -image-max-entries 1 -image-max-ratio 2 -image-max-disk 1GiB -image-stall 1h -image-min-rate 0 -cache-size 9GiB -disk-reserve 0 -allow-hosts .corp.example,fd00::/8 -deny-hosts a -deny-hosts b " +
				"-pool d41d8cd98f00b204e9800998ecf8427e -vix-library /x.so -vix-host-options 0x200 -vms 5 -memory-reserve 0 -max-lifetime 12h -start memory -template-memory 4GiB -template-age 2h -connections 7 -callback-secret-file /s -log-file /l " +
				"-image-max-depth 1 -image-max-path 4096 -image-max-idle 24h -credentials-file /cr",
			change: func(c *config.Config) {
				*c = config.Config{
					Listen: "[::1]:0", Data: "/srv/vms", Driver: "qemu", Network: "user", Forward: []int{80, 443}, Creations: 3,
					ImageMaxBytes: 3 << 29, LogFormat: "json", LogLevel: slog.LevelDebug, Insecure: true, PrintConfig: true,
					ImageMaxDownload: 1 << 20, ImageMaxEntries: 1, ImageMaxRatio: 2, ImageMaxDisk: 1 << 30, ImageStall: time.Hour, CacheSize: 9 << 30,
					ImageMaxDepth: 1, ImageMaxPath: 4096, ImageMaxIdle: 24 * time.Hour,
					AllowHosts: []string{".corp.example", "fd00::/8"}, DenyHosts: []string{"a", "b"},
					Pools: []config.Pool{{Checksum: "d41d8cd98f00b204e9800998ecf8427e", CPUs: 2, Memory: 512, Count: 1}},
					Start: "memory", TemplateMemory: 4 << 30, TemplateAge: 2 * time.Hour,
					VMs: 5, MaxLifetime: 12 * time.Hour, Connections: 7, SecretFile: "/s", LogFile: "/l", CredentialsFile: "/cr",
					VIXLibrary: "/x.so", VIXHostOptions: 0x200,
				}
			},
		},
		{
			name: "every variable",
			env: env{
				"OSX_BUILDER_LISTEN": "0.0.0.0:80", "OSX_BUILDER_DATA": "~/vms", "OSX_BUILDER_DRIVER": "vix",
				"OSX_BUILDER_NETWORK": "bridge", "OSX_BUILDER_FORWARD": " 8080 , 1 ,", "OSX_BUILDER_CREATIONS": "1000",
				"OSX_BUILDER_IMAGE_MAX_BYTES": "1048576", "OSX_BUILDER_LOG_FORMAT": "json", "OSX_BUILDER_LOG_LEVEL": "error",
				"OSX_BUILDER_INSECURE": "1", "OSX_BUILDER_PRINT_CONFIG": "true", "OSX_BUILDER_VERSION": "1.2.3", "OSX_BUILDER_PRINT_UNIT": "x",
				"OSX_BUILDER_IMAGE_MAX_DOWNLOAD": "1GiB", "OSX_BUILDER_IMAGE_MAX_ENTRIES": "1000000", "OSX_BUILDER_IMAGE_MAX_RATIO": "100000", "OSX_BUILDER_IMAGE_MAX_DISK": "1048576", "OSX_BUILDER_IMAGE_STALL": "1s", "OSX_BUILDER_IMAGE_MIN_RATE": "2KiB",
				"OSX_BUILDER_CACHE_SIZE": "1", "OSX_BUILDER_DISK_RESERVE": "2", "OSX_BUILDER_ALLOW_HOSTS": " *.a.example , ::1,", "OSX_BUILDER_DENY_HOSTS": "10.0.0.1",
				"OSX_BUILDER_VMS": "100000", "OSX_BUILDER_MEMORY_RESERVE": "2GiB", "OSX_BUILDER_MAX_LIFETIME": "1m30s", "OSX_BUILDER_START": "memory", "OSX_BUILDER_POOL": "MD5-D41D8CD98F00B204E9800998ECF8427E cpus=4 memory=1gib start=memory count=3", "OSX_BUILDER_TEMPLATE_MEMORY": "1", "OSX_BUILDER_TEMPLATE_AGE": "1m", "OSX_BUILDER_CONNECTIONS": "1",
				"OSX_BUILDER_CALLBACK_SECRET_FILE": "~/s", "OSX_BUILDER_CREDENTIALS_FILE": "~/cr", "OSX_BUILDER_LOG_FILE": "~/l",
				"OSX_BUILDER_VIX_LIBRARY": "~/x.so", "OSX_BUILDER_VIX_HOST_OPTIONS": "0x7fffffff",
				"OSX_BUILDER_IMAGE_MAX_DEPTH": "255", "OSX_BUILDER_IMAGE_MAX_PATH": "1", "OSX_BUILDER_IMAGE_MAX_IDLE": "1s",
			},
			change: func(c *config.Config) {
				*c = config.Config{
					Listen: "0.0.0.0:80", Data: "/home/ci/vms", Driver: "vix", Network: "bridge", Forward: []int{8080, 1}, Creations: 1000,
					ImageMaxBytes: 1 << 20, LogFormat: "json", LogLevel: slog.LevelError, Insecure: true,
					ImageMaxDownload: 1 << 30, ImageMaxEntries: 1_000_000, ImageMaxRatio: 100_000, ImageMaxDisk: 1 << 20, ImageStall: time.Second, ImageMinRate: 2 << 10, CacheSize: 1, DiskReserve: 2,
					ImageMaxDepth: 255, ImageMaxPath: 1, ImageMaxIdle: time.Second,
					AllowHosts: []string{"*.a.example", "::1"}, DenyHosts: []string{"10.0.0.1"},
					Pools: []config.Pool{{Checksum: "md5-d41d8cd98f00b204e9800998ecf8427e", CPUs: 4, Memory: 1024, Count: 3}},
					Start: "memory", TemplateMemory: 1, TemplateAge: time.Minute,
					VMs: 100000, MemoryReserve: 2 << 30, MaxLifetime: 90 * time.Second, Connections: 1, SecretFile: "/home/ci/s", LogFile: "/home/ci/l", CredentialsFile: "/home/ci/cr",
					VIXLibrary: "/home/ci/x.so", VIXHostOptions: 0x7fffffff,
				}
			},
		},
		{
			name: "every entry of the file",
			args: "-config FILE",
			file: "# ours\r\nlisten=:9\n\n  data = /srv/a = b # c\ndriver = qemu\nnetwork = user\nforward = 80\nforward = 443\ncreations = 2\n" +
				"image-max-bytes = 2 tib\nlog-format = json\nlog-level = warn\ninsecure = true\n" +
				"image-max-download = 2mib\nimage-max-entries = 3\nimage-max-ratio = 4\nimage-max-disk = 3gib\nimage-stall = 5s\nimage-min-rate = 3\ncache-size = 6\ndisk-reserve = 7\nallow-hosts = x\nallow-hosts = y\ndeny-hosts =\n" +
				"vms = 9\nmemory-reserve = 1kib\nmax-lifetime =\nstart = memory\npool = d41d8cd98f00b204e9800998ecf8427e count=2\npool = da39a3ee5e6b4b0d3255bfef95601890afd80709  memory=33554433\ntemplate-memory = 2mib\ntemplate-age = 3h\nconnections = 2\ncallback-secret-file =\nlog-file = /l\nvix-library = /y.so\nvix-host-options = 16\n" +
				"image-max-depth = 2\nimage-max-path = 3\nimage-max-idle = 1h30m",
			change: func(c *config.Config) {
				*c = config.Config{
					Listen: ":9", Data: "/srv/a = b # c", Driver: "qemu", Network: "user", Forward: []int{80, 443}, Creations: 2,
					ImageMaxBytes: 2 << 40, LogFormat: "json", LogLevel: slog.LevelWarn, Insecure: true,
					ImageMaxDownload: 2 << 20, ImageMaxEntries: 3, ImageMaxRatio: 4, ImageMaxDisk: 3 << 30, ImageStall: 5 * time.Second, ImageMinRate: 3, CacheSize: 6, DiskReserve: 7,
					ImageMaxDepth: 2, ImageMaxPath: 3, ImageMaxIdle: 90 * time.Minute,
					AllowHosts: []string{"x", "y"},
					Pools: []config.Pool{
						{Checksum: "d41d8cd98f00b204e9800998ecf8427e", CPUs: 2, Memory: 512, Count: 2},
						{Checksum: "da39a3ee5e6b4b0d3255bfef95601890afd80709", CPUs: 2, Memory: 33, Count: 1},
					},
					Start: "memory", TemplateMemory: 2 << 20, TemplateAge: 3 * time.Hour,
					VMs: 9, MemoryReserve: 1 << 10, Connections: 2, LogFile: "/l",
					VIXLibrary: "/y.so", VIXHostOptions: 16,
				}
			},
		},
		{
			name:   "the flag takes precedence",
			args:   "-config FILE -creations 1",
			env:    env{"OSX_BUILDER_CREATIONS": "2"},
			file:   "creations = 3",
			change: func(c *config.Config) { c.Creations = 1 },
		},
		{
			name:   "the variable takes precedence over the file",
			args:   "-config FILE",
			env:    env{"OSX_BUILDER_CREATIONS": "2"},
			file:   "creations = 3",
			change: func(c *config.Config) { c.Creations = 2 },
		},
		{
			name:   "an empty variable is unset",
			args:   "-config FILE",
			env:    env{"OSX_BUILDER_CREATIONS": "", "PORT": ""},
			file:   "creations = 3",
			change: func(c *config.Config) { c.Creations = 3 },
		},
		{
			name:   "the file named by the variable",
			env:    env{"OSX_BUILDER_CONFIG": "FILE"},
			file:   "creations = 3",
			change: func(c *config.Config) { c.Creations = 3 },
		},
		{
			name:   "the file in the home folder",
			args:   "-config ~/osx-builder.conf",
			env:    env{"HOME": "DIR"},
			file:   "creations = 3\ndata = ~",
			change: func(c *config.Config) { c.Creations = 3; c.Data = "DIR" },
		},
		{
			name:   "no file, by an empty flag",
			args:   "-config=",
			env:    env{"OSX_BUILDER_CONFIG": "/nowhere"},
			change: func(*config.Config) {},
		},
		{
			name:   "a list given twice is one, a value given twice the last",
			args:   "-forward 80 --forward=443 -creations 1 -creations 2",
			env:    env{"OSX_BUILDER_FORWARD": "9"},
			change: func(c *config.Config) { c.Forward = []int{80, 443}; c.Creations = 2 },
		},
		{
			name:   "a list emptied by its flag",
			args:   "-forward=",
			env:    env{"OSX_BUILDER_FORWARD": "9"},
			change: func(*config.Config) {},
		},
		{
			name:   "a switch turned off by its flag",
			args:   "-insecure=false",
			env:    env{"OSX_BUILDER_INSECURE": "true"},
			change: func(*config.Config) {},
		},
		{
			name:   "a path relative to the working directory",
			args:   "-data ../vms",
			change: func(c *config.Config) { c.Data = filepath.Join(wd, "../vms") },
		},
		{
			name:   "no home, which is not needed",
			args:   "-data /srv/vms",
			env:    env{"HOME": ""},
			change: func(c *config.Config) { c.Data = "/srv/vms" },
		},
		{
			name:   "PORT",
			env:    env{"PORT": "8080"},
			change: func(c *config.Config) { c.Listen = "127.0.0.1:8080" },
		},
		{
			name:   "the variable takes precedence over PORT",
			env:    env{"PORT": "tcp://10.0.0.1", "OSX_BUILDER_LISTEN": "localhost:9"},
			change: func(c *config.Config) { c.Listen = "localhost:9" },
		},
		{
			name:   "the file takes precedence over PORT",
			args:   "-config FILE",
			env:    env{"PORT": "8080"},
			file:   "listen = 127.0.0.1:9",
			change: func(c *config.Config) { c.Listen = "127.0.0.1:9" },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wanted := defaults()
			tc.change(&wanted)
			name := file(t, tc.file)
			expand := strings.NewReplacer("FILE", name, "DIR", filepath.Dir(name)).Replace
			for key, value := range tc.env {
				tc.env[key] = expand(value)
			}
			wanted.Data = expand(wanted.Data)
			got, err := config.Load(strings.Fields(expand(tc.args)), tc.env.get)
			if err != nil {
				t.Fatal(err)
			}
			if tc.file != "" {
				wanted.File = name
			}
			if diff := cmp.Diff(wanted, got, cmpopts.IgnoreUnexported(config.Config{})); diff != "" {
				t.Errorf("Load (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadVersionIgnoresErrors(t *testing.T) {
	got, err := config.Load([]string{"-version"}, env{"HOME": "", "OSX_BUILDER_CREATIONS": "many"}.get)
	if err != nil || !got.Version {
		t.Errorf("got %+v, %v, want Version", got, err)
	}
}

package config_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"osx-builder/config"
)

func TestHelp(t *testing.T) {
	for _, arg := range []string{"-help", "--help", "-h"} {
		_, err := config.Load([]string{"-creations", "9", arg}, env{"HOME": ""}.get)
		var help *config.HelpError
		if !errors.As(err, &help) {
			t.Fatalf("%s: got %v, want a HelpError", arg, err)
		}
		lines := strings.Split(help.Text, "\n")
		for flag, variable := range map[string]string{
			"  -listen HOST:PORT": "OSX_BUILDER_LISTEN. Default 127.0.0.1:12345.", "  -data DIR": "OSX_BUILDER_DATA. Default ~/.osx-builder.",
			"  -driver NAME": "OSX_BUILDER_DRIVER. Default auto.", "  -vix-library FILE": "OSX_BUILDER_VIX_LIBRARY. Default none.", "  -vmrun FILE": "OSX_BUILDER_VMRUN. Default none.",
			"  -vix-host-options BITS": "OSX_BUILDER_VIX_HOST_OPTIONS. Default 0.", "  -network KIND": "OSX_BUILDER_NETWORK. Default auto.",
			"  -bridge NAME": "OSX_BUILDER_BRIDGE. Default none.", "  -nat-subnet CIDR": "OSX_BUILDER_NAT_SUBNET. Default none.",
			"  -guest-isolation": "OSX_BUILDER_GUEST_ISOLATION. Default false.", "  -clean-network": "",
			"  -forward PORTS": "OSX_BUILDER_FORWARD. Default none.", "  -creations N": "OSX_BUILDER_CREATIONS. Default 16.",
			"  -image-max-download SIZE": "OSX_BUILDER_IMAGE_MAX_DOWNLOAD. Default 64GiB.", "  -image-max-entries N": "OSX_BUILDER_IMAGE_MAX_ENTRIES. Default 10000.",
			"  -image-max-ratio N": "OSX_BUILDER_IMAGE_MAX_RATIO. Default 200.", "  -image-stall DURATION": "OSX_BUILDER_IMAGE_STALL. Default 60s.",
			"  -image-max-depth N": "OSX_BUILDER_IMAGE_MAX_DEPTH. Default 16.", "  -image-max-path N": "OSX_BUILDER_IMAGE_MAX_PATH. Default 1024.",
			"  -image-max-idle DURATION": "OSX_BUILDER_IMAGE_MAX_IDLE. Default 5m.",
			"  -cache-size SIZE":         "OSX_BUILDER_CACHE_SIZE. Default 0.", "  -disk-reserve SIZE": "OSX_BUILDER_DISK_RESERVE. Default 1GiB.",
			"  -allow-hosts HOSTS": "OSX_BUILDER_ALLOW_HOSTS. Default none.", "  -deny-hosts HOSTS": "OSX_BUILDER_DENY_HOSTS. Default none.",
			"  -image-max-bytes SIZE": "OSX_BUILDER_IMAGE_MAX_BYTES. Default 256GiB.", "  -log-format FORMAT": "OSX_BUILDER_LOG_FORMAT. Default text.",
			"  -host-names NAMES": "OSX_BUILDER_HOST_NAMES. Default none.", "  -token-file FILE": "OSX_BUILDER_TOKEN_FILE. Default none.", "  -debug-listen HOST:PORT": "OSX_BUILDER_DEBUG_LISTEN. Default none.",
			"  -tls-cert FILE": "OSX_BUILDER_TLS_CERT. Default none.", "  -tls-key FILE": "OSX_BUILDER_TLS_KEY. Default none.",
			"  -log-level LEVEL": "OSX_BUILDER_LOG_LEVEL. Default info.", "  -insecure": "OSX_BUILDER_INSECURE. Default false.",
			"  -vms N": "OSX_BUILDER_VMS. Default 1000.", "  -memory-reserve SIZE": "OSX_BUILDER_MEMORY_RESERVE. Default 512MiB.",
			"  -vms-per-token N": "OSX_BUILDER_VMS_PER_TOKEN. Default 0.", "  -memory-per-token SIZE": "OSX_BUILDER_MEMORY_PER_TOKEN. Default 0.",
			"  -max-lifetime DURATION": "OSX_BUILDER_MAX_LIFETIME. Default none.", "  -connections N": "OSX_BUILDER_CONNECTIONS. Default 1000.",
			"  -credentials-file FILE": "OSX_BUILDER_CREDENTIALS_FILE. Default none.", "  -ca-file FILE": "OSX_BUILDER_CA_FILE. Default none.",
			"  -callback-secret-file FILE": "OSX_BUILDER_CALLBACK_SECRET_FILE. Default none.", "  -log-file FILE": "OSX_BUILDER_LOG_FILE. Default none.",
			"  -print-unit KIND": "", "  -config FILE": "OSX_BUILDER_CONFIG. Default none.", "  -print-config": "", "  -version": "", "  -help": "",
		} {
			if !slices.Contains(lines, flag) {
				t.Errorf("help has no line %q", flag)
			}
			if !strings.Contains(help.Text, variable) {
				t.Errorf("help does not say %q", variable)
			}
		}
		if !strings.Contains(strings.Join(strings.Fields(help.Text), " "), "The variable PORT sets") {
			t.Error("help does not mention PORT")
		}
		for _, line := range lines {
			if len(line) > 80 {
				t.Errorf("got a line of %d bytes, want at most 80: %s", len(line), line)
			}
		}
	}
}

func TestPrint(t *testing.T) {
	name := file(t, "log-level = warn\n")
	c, err := config.Load([]string{"-print-config", "-forward", "80", "-forward", "443", "-config", name},
		env{"PORT": "8080", "OSX_BUILDER_IMAGE_MAX_BYTES": "1536MiB", "OSX_BUILDER_VIX_HOST_OPTIONS": "512"}.get)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	wanted := strings.ReplaceAll(`# variable PORT
listen = 127.0.0.1:8080
# default
host-names =
# default
token-file =
# default
insecure = false
# default
tls-cert =
# default
tls-key =
# default
debug-listen =
# default
data = /home/ci/.osx-builder
# default
driver = auto
# default
vix-library =
# default
vmrun =
# variable OSX_BUILDER_VIX_HOST_OPTIONS
vix-host-options = 0x200
# default
network = auto
# default
bridge =
# default
nat-subnet =
# default
guest-isolation = false
# flag
forward = 80,443
# default
creations = 16
# default
vms = 1000
# default
memory-reserve = 512MiB
# default
vms-per-token = 0
# default
memory-per-token = 0
# default
start = boot
# default
template-memory = 0
# default
template-age =
# default
pool =
# default
max-lifetime =
# default
connections = 1000
# default
callback-secret-file =
# default
credentials-file =
# default
ca-file =
# variable OSX_BUILDER_IMAGE_MAX_BYTES
image-max-bytes = 1.5GiB
# default
image-max-download = 64GiB
# default
image-max-entries = 10000
# default
image-max-depth = 16
# default
image-max-path = 1024
# default
image-max-ratio = 200
# default
image-max-disk = 2TiB
# default
image-stall = 1m0s
# default
image-min-rate = 1KiB
# default
image-max-idle = 5m0s
# default
cache-size = 0
# default
disk-reserve = 1GiB
# default
allow-hosts =
# default
deny-hosts =
# default
log-format = text
# FILE, line 1
log-level = warn
# default
log-file =
# flag
# config = FILE
# default
vsphere-url =
# default
vsphere-username =
# default
vsphere-password-file =
# default
vsphere-datacenter =
# default
vsphere-cluster =
# default
vsphere-pool =
# default
vsphere-folder =
# default
vsphere-datastore =
# default
vsphere-network =
# default
vsphere-ca-file =
# default
vsphere-thumbprint =
# default
vsphere-insecure = false
`, "FILE", name)
	if diff := cmp.Diff(wanted, b.String()); diff != "" {
		t.Errorf("Print (-want +got):\n%s", diff)
	}
}

// PrintInfo writes what the arguments ask for, and otherwise nothing.
func TestPrintInfo(t *testing.T) {
	for args, want := range map[string]string{
		"-help": "Usage: osx-builder", "-version": "the version\n", "-print-config": "creations = 16\n",
		"-print-unit launchd": "<plist", "": "", "-creations 0": "",
	} {
		c, loadErr := config.Load(strings.Fields(args), env{}.get)
		var b strings.Builder
		asked, err := config.PrintInfo(&b, c, loadErr, "the version")
		if asked != (want != "") || !strings.Contains(b.String(), want) || want == "" && b.Len() > 0 {
			t.Errorf("%q: got %v and %q, want %q", args, asked, b.String(), want)
		}
		if wantErr := strings.Contains(args, "creations"); (err != nil) != wantErr {
			t.Errorf("%q: got error %v, want an error: %v", args, err, wantErr)
		}
	}
}

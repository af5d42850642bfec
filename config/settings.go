package config

import (
	"flag"
	"slices"
	"strings"
	"time"
)

// A setting is one row of the table that everything else in this package uses. To add a setting, add a field to
// [Config] and a row here.
type setting struct {
	name         string // of the flag and of the entry in the file
	arg          string // the placeholder of the value in -help; "" for a boolean
	defaultValue string
	help         string
	value        flag.Value // parses and checks a value and stores it in the Config
	scope        scope
	list         bool // if the setting is given more than once, its values are joined by commas
}

// scope says which sources may give a setting.
type scope int

const (
	anySource scope = iota
	notInFile       // flag or environment variable
	flagOnly
)

// env returns the name of the setting's environment variable.
func (s setting) env() string {
	return "OSX_BUILDER_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// settings returns the table. Its values are stored in c. A path that begins with ~/ is relative to home.
func (c *Config) settings(home string) []setting {
	return slices.Concat(c.generalSettings(home), c.vsphereSettings(home))
}

// generalSettings are the rows of everything but the vSphere driver.
func (c *Config) generalSettings(home string) []setting {
	return []setting{
		{
			name: "listen", arg: "HOST:PORT", defaultValue: "127.0.0.1:12345", value: listenValue{&c.Listen},
			help: "Address of the HTTP API, or unix: and the absolute path of a socket. Port 0 means a free port. The variable PORT sets the port of the default address.",
		},
		{
			name: "host-names", arg: "NAMES", defaultValue: "", value: hostNamesValue{&c.HostNames}, list: true,
			help: "Host names that clients may use for the daemon, such as build.example.com, in addition to localhost, this host's name, the host of -listen, and IP addresses. Requests for other names are refused. May be repeated.",
		},
		{
			name: "token-file", arg: "FILE", defaultValue: "", value: pathValue{target: &c.TokenFile, home: home, optional: true},
			help: "File with the valid tokens, one per line, each of at least 16 characters. \"name=NAME scopes=SCOPE,...\" may follow a token; the scopes are read, create, own and admin, and a token without scopes has full rights. Every request needs one of the tokens, as Authorization: Bearer TOKEN. To replace a token, list both for a while. SIGHUP reads the file again.",
		},
		{
			name: "insecure", defaultValue: "false", value: boolValue{&c.Insecure},
			help: "Allow a -listen address that other hosts can reach without -token-file. Requests are not authenticated then.",
		},
		{
			name: "tls-cert", arg: "FILE", defaultValue: "", value: pathValue{target: &c.TLSCert, home: home, optional: true},
			help: "PEM file with the certificate for serving the API over TLS, followed by any intermediate certificates. SIGHUP reads it again.",
		},
		{
			name: "tls-key", arg: "FILE", defaultValue: "", value: pathValue{target: &c.TLSKey, home: home, optional: true},
			help: "PEM file with the certificate's private key. SIGHUP reads it again.",
		},
		{
			name: "debug-listen", arg: "HOST:PORT", defaultValue: "", value: loopbackValue{&c.DebugListen},
			help: "Loopback address of the profiler, /debug/pprof/. Without one there is no profiler.",
		},
		{
			name: "data", arg: "DIR", defaultValue: defaultData, value: pathValue{target: &c.Data, home: home},
			help: "Folder for images, machines and their records. Only one daemon at a time can use it.",
		},
		{
			name: "driver", arg: "NAME", defaultValue: "auto", value: enumValue{&c.Driver, []string{"auto", "qemu", "vix", "vmrun", "vsphere"}},
			help: "Hypervisor: qemu, vix (VMware through its library), vmrun (VMware through its command), vsphere (a vCenter or ESXi), or auto, which uses VMware if it answers and QEMU otherwise.",
		},
		{
			name: "vix-library", arg: "FILE", defaultValue: "", value: pathValue{target: &c.VIXLibrary, home: home, optional: true},
			help: "VMware's VIX library, libvixAllProducts. By default it is searched where Fusion and Workstation install it.",
		},
		{
			name: "vmrun", arg: "FILE", defaultValue: "", value: pathValue{target: &c.VMRun, home: home, optional: true},
			help: "VMware's command vmrun. By default it is searched where Fusion and Workstation install it, and in PATH.",
		},
		{
			name: "vix-host-options", arg: "BITS", defaultValue: "0", value: bitsValue{&c.VIXHostOptions},
			help: "Options for the connection to VMware, such as 0x200. On macOS 0x200 is also tried if VMware answers that there is no licence.",
		},
		{
			name: "network", arg: "KIND", defaultValue: "auto", value: enumValue{&c.Network, []string{"auto", "user", "bridge"}},
			help: "How QEMU connects nat and hostonly machines: bridge (managed bridges; needs Linux and root), user (forwarded ports on 127.0.0.1), or auto, which uses bridges if the host allows them.",
		},
		{
			name: "bridge", arg: "NAME", defaultValue: "", value: deviceValue{&c.Bridge},
			help: "Bridge of this host for bridged machines, such as br0. Without one there are no bridged machines.",
		},
		{
			name: "nat-subnet", arg: "CIDR", defaultValue: "", value: subnetValue{&c.NATSubnet},
			help: "Subnet of nat machines on a bridge, such as 10.20.30.0/24. By default a free one is chosen. It must not overlap a route of this host.",
		},
		{
			name: "guest-isolation", defaultValue: "false", value: boolValue{&c.Isolate},
			help: "Prevent machines on bridges from reaching each other.",
		},
		{
			name: "forward", arg: "PORTS", defaultValue: "", value: portsValue{&c.Forward}, list: true,
			help: "TCP ports of the guest that user networking forwards in addition to 22, such as 80,443. May be repeated.",
		},
		{
			name: "creations", arg: "N", defaultValue: "16", value: intValue{&c.Creations, 1, 1000},
			help: "Largest number of unfinished creations, 1 to 1000. Further requests return 503.",
		},
		{
			name: "vms", arg: "N", defaultValue: "1000", value: intValue{&c.VMs, 1, 100_000},
			help: "Largest number of machines, 1 to 100000. Further requests return 503.",
		},
		{
			name: "memory-reserve", arg: "SIZE", defaultValue: "512MiB", value: sizeValue{&c.MemoryReserve, 0},
			help: "Host memory that machines cannot use, such as 2GiB, or in bytes. Requests for more than the rest return 503.",
		},
		{
			name: "vms-per-token", arg: "N", defaultValue: "0", value: intValue{&c.VMsPerToken, 0, 100_000},
			help: "Largest number of machines of one named token, up to 100000. Further requests return 429. 0 means no limit; tokens without a name have none.",
		},
		{
			name: "memory-per-token", arg: "SIZE", defaultValue: "0", value: sizeValue{&c.MemoryPerToken, 0},
			help: "Memory that the machines of one named token may have together, such as 8GiB, or in bytes. Requests for more return 429. 0 means no limit; tokens without a name have none.",
		},
		{
			name: "start", arg: "HOW", defaultValue: "boot", value: enumValue{&c.Start, []string{"boot", "memory"}},
			help: "How machines start whose request does not say: boot, or memory, which continues a saved guest of the same image and size if there is one.",
		},
		{
			name: "template-memory", arg: "SIZE", defaultValue: "0", value: sizeValue{&c.TemplateMemory, 0},
			help: "Host memory that saved guests may take together, such as 4GiB, or in bytes. 0 means an eighth of the host's memory. The least recently used are removed to make room.",
		},
		{
			name: "template-age", arg: "DURATION", defaultValue: "", value: optionalDurationValue{&c.TemplateAge},
			help: "Age at which a guest is saved again, such as 12h. By default 1h, or 24h for guests whose agent can set the clock.",
		},
		{
			name: "pool", arg: "POOL", defaultValue: "", value: poolsValue{&c.Pools}, list: true,
			help: "Machines that are kept prepared up to the last step, as in \"CHECKSUM cpus=2 memory=1GiB start=memory count=4\": four of the image with that checksum. A request for such a machine gets one of them. They count against -vms and -memory-reserve. May be repeated.",
		},
		{
			name: "max-lifetime", arg: "DURATION", defaultValue: "", value: optionalDurationValue{&c.MaxLifetime},
			help: "Longest lifetime of a machine, such as 12h, after which the daemon destroys it. It is also the lifetime of machines whose request has none.",
		},
		{
			name: "connections", arg: "N", defaultValue: "1000", value: intValue{&c.Connections, 1, 65535},
			help: "Largest number of client connections, 1 to 65535. Further connections wait.",
		},
		{
			name: "callback-secret-file", arg: "FILE", defaultValue: "", value: pathValue{target: &c.SecretFile, home: home, optional: true},
			help: "File with the secrets that sign callbacks, one per line: whsec_ and 24 to 64 bytes in base64. Every secret signs every callback, so to replace a secret, list both for a while. SIGHUP reads the file again.",
		},
		{
			name: "credentials-file", arg: "FILE", defaultValue: "", value: pathValue{target: &c.CredentialsFile, home: home, optional: true},
			help: "File with the credentials for image servers. Each line has the start of a URL, then \"bearer TOKEN\", \"basic USER PASSWORD\" or \"header NAME VALUE\"; a file in the format of .netrc works too. They are sent only to that host, and without TLS only to loopback or to a URL that begins with http. SIGHUP reads the file again.",
		},
		{
			name: "ca-file", arg: "FILE", defaultValue: "", value: certificatesValue{pathValue{target: &c.CAFile, home: home, optional: true}, &c.RootCAs},
			help: "PEM file with certificate authorities that the servers of images and callbacks may use, in addition to this host's.",
		},
		{
			name: "image-max-bytes", arg: "SIZE", defaultValue: "256GiB", value: sizeValue{&c.ImageMaxBytes, minImage},
			help: "Largest unpacked image, such as 256GiB, or in bytes; at least 1MiB.",
		},
		{
			name: "image-max-download", arg: "SIZE", defaultValue: "64GiB", value: sizeValue{&c.ImageMaxDownload, minImage},
			help: "Largest image archive, such as 64GiB, or in bytes; at least 1MiB.",
		},
		{
			name: "image-max-entries", arg: "N", defaultValue: "10000", value: intValue{&c.ImageMaxEntries, 1, 1_000_000},
			help: "Largest number of files and folders in an image archive, 1 to 1000000.",
		},
		{
			name: "image-max-depth", arg: "N", defaultValue: "16", value: intValue{&c.ImageMaxDepth, 1, 255},
			help: "Largest number of elements of a path in an image archive, 1 to 255.",
		},
		{
			name: "image-max-path", arg: "N", defaultValue: "1024", value: intValue{&c.ImageMaxPath, 1, 4096},
			help: "Longest path in an image archive in bytes, 1 to 4096.",
		},
		{
			name: "image-max-ratio", arg: "N", defaultValue: "200", value: intValue{&c.ImageMaxRatio, 1, 100_000},
			help: "Largest ratio of unpacked bytes to bytes of the image archive, 1 to 100000. Runs of zeroes do not count.",
		},
		{
			name: "image-max-disk", arg: "SIZE", defaultValue: "2TiB", value: sizeValue{&c.ImageMaxDisk, minImage},
			help: "Largest virtual disk of an image, such as 500GiB, or in bytes; at least 1MiB.",
		},
		{
			name: "image-stall", arg: "DURATION", defaultValue: "60s", value: durationValue{&c.ImageStall, time.Second, time.Hour},
			help: "How long an image server may send nothing before the download is retried, 1s to 1h.",
		},
		{
			name: "image-min-rate", arg: "SIZE", defaultValue: "1KiB", value: sizeValue{&c.ImageMinRate, 0},
			help: "Bytes a second that an image server must send on average over -image-stall, such as 10KiB; 0 means any number. A slower server counts as silent.",
		},
		{
			name: "image-max-idle", arg: "DURATION", defaultValue: "5m", value: durationValue{&c.ImageMaxIdle, time.Second, 24 * time.Hour},
			help: "How long a download may receive nothing, over all its retries, before the creation fails, 1s to 24h.",
		},
		{
			name: "cache-size", arg: "SIZE", defaultValue: "0", value: sizeValue{&c.CacheSize, 0},
			help: "Disk space for unpacked images, such as 100GiB, or in bytes; 0 means the whole disk. If they need more, the daemon removes the least recently used ones that no machine needs.",
		},
		{
			name: "disk-reserve", arg: "SIZE", defaultValue: "1GiB", value: sizeValue{&c.DiskReserve, 0},
			help: "Disk space that images leave free on the disk of the data folder, such as 10GiB, or in bytes.",
		},
		{
			name: "allow-hosts", arg: "HOSTS", defaultValue: "", value: hostsValue{&c.AllowHosts}, list: true,
			help: "Host names, IP addresses and networks that the URLs of images and callbacks may use, such as images.example.com,.corp.example,10.0.0.0/8. By default all are allowed except link-local and metadata addresses. May be repeated.",
		},
		{
			name: "deny-hosts", arg: "HOSTS", defaultValue: "", value: hostsValue{&c.DenyHosts}, list: true,
			help: "Host names, IP addresses and networks that those URLs may not use. Addresses are compared with the one that is really dialled. May be repeated.",
		},
		{
			name: "log-format", arg: "FORMAT", defaultValue: "text", value: enumValue{&c.LogFormat, []string{"text", "json"}},
			help: "Format of the log: text or json.",
		},
		{
			name: "log-level", arg: "LEVEL", defaultValue: "info", value: levelValue{&c.LogLevel},
			help: "Lowest level that is logged: debug, info, warn or error.",
		},
		{
			name: "log-file", arg: "FILE", defaultValue: "", value: pathValue{target: &c.LogFile, home: home, optional: true},
			help: "File to which the log is appended instead of standard error. SIGHUP opens it again, for programs that rotate logs.",
		},
		{
			name: "config", arg: "FILE", defaultValue: "", value: pathValue{target: &c.File, home: home, optional: true}, scope: notInFile,
			help: "Configuration file with one line \"name = value\" per setting. The name is that of the flag without the dash. Lines that begin with # are comments.",
		},
		{
			name: "print-config", defaultValue: "false", value: boolValue{&c.PrintConfig}, scope: flagOnly,
			help: "Print every setting and the source of its value, as a configuration file, and exit.",
		},
		{
			name: "print-unit", arg: "KIND", defaultValue: "", value: unitKind(&c.PrintUnit), scope: flagOnly,
			help: "Print a systemd unit, a launchd property list or a script for a Windows service that runs this program, and exit.",
		},
		{
			name: "clean-network", defaultValue: "false", value: boolValue{&c.CleanNetwork}, scope: flagOnly,
			help: "Remove every network device, firewall rule and DHCP server that daemons with this -data folder created, even of running machines, and exit.",
		},
		{
			name: "check-vmware", arg: "FILE", defaultValue: "", value: checkValue{&c.CheckVMware, home}, scope: flagOnly,
			help: "Walk VMware through the life of a machine, print a report and exit. FILE is the .vmx of an unpacked image, or own for a machine without a guest. The verb check-vmware does the same.",
		},
		{
			name: "version", defaultValue: "false", value: boolValue{&c.Version}, scope: flagOnly,
			help: "Print the version and exit.",
		},
	}
}

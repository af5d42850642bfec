package config

import (
	"flag"
	"strings"
	"time"
)

// A setting is one row of the table that all else in this package works from.
// To add a setting is to add a field to Config and a row here.
type setting struct {
	name     string // of the flag, and of the entry in the file
	arg      string // what the value is, for -help; "" for a switch
	standard string // the default, as it would be written
	help     string
	value    flag.Value // parses and checks a value and stores it in the Config
	reach    reach
	list     bool // given more than once, the values are joined by commas
}

// reach says where a setting may be given.
type reach int

const (
	anywhere  reach = iota
	notInFile       // by flag or variable
	flagOnly
)

// env is the name of the setting's environment variable.
func (s setting) env() string {
	return "OSX_BUILDER_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// settings is the table, its values bound to c. A path that begins with ~/
// is relative to home.
func (c *Config) settings(home string) []setting {
	return []setting{
		{
			name: "listen", arg: "HOST:PORT", standard: "127.0.0.1:12345", value: place{&c.Listen},
			help: "Address of the HTTP API, or unix: and the absolute path of a socket; port 0 takes a free one. The variable PORT alone sets the port of the default.",
		},
		{
			name: "host-names", arg: "NAMES", standard: "", value: names{&c.HostNames}, list: true,
			help: "Names by which clients may address the daemon, as in build.example.com, beside localhost, this host's own, that of -listen, and IP addresses. Requests to others are refused. May be repeated.",
		},
		{
			name: "token-file", arg: "FILE", standard: "", value: path{at: &c.TokenFile, home: home, optional: true},
			help: "File with the tokens that requests must carry, as Authorization: Bearer TOKEN: at least 16 characters, one a line. Any of several will do, so that one can replace another. SIGHUP reads it anew.",
		},
		{
			name: "insecure", standard: "false", value: toggle{&c.Insecure},
			help: "Allow a -listen address that other hosts reach without a -token-file: requests are not authenticated then.",
		},
		{
			name: "tls-cert", arg: "FILE", standard: "", value: path{at: &c.TLSCert, home: home, optional: true},
			help: "Certificate with which the API is served over TLS, in PEM form, with what leads to its authority after it. SIGHUP reads it anew.",
		},
		{
			name: "tls-key", arg: "FILE", standard: "", value: path{at: &c.TLSKey, home: home, optional: true},
			help: "The certificate's private key, in PEM form. SIGHUP reads it anew.",
		},
		{
			name: "debug-listen", arg: "HOST:PORT", standard: "", value: inside{&c.DebugListen},
			help: "Loopback address of the profiler, /debug/pprof/. None without one.",
		},
		{
			name: "data", arg: "DIR", standard: "~/.osx-builder", value: path{at: &c.Data, home: home},
			help: "Folder for images, machines and their records. One daemon at a time uses it.",
		},
		{
			name: "driver", arg: "NAME", standard: "auto", value: choice{&c.Driver, []string{"auto", "qemu", "vix"}},
			help: "Hypervisor: qemu, vix (VMware), or auto for VMware where it answers and else QEMU.",
		},
		{
			name: "vix-library", arg: "FILE", standard: "", value: path{at: &c.VIXLibrary, home: home, optional: true},
			help: "VMware's VIX library, libvixAllProducts; none for where the installers of Fusion and Workstation put it.",
		},
		{
			name: "vix-host-options", arg: "BITS", standard: "0", value: bits{&c.VIXHostOptions},
			help: "Options to connect to VMware with, as in 0x200. On macOS, where VMware answers that there is no licence, 0x200 is tried by itself.",
		},
		{
			name: "network", arg: "KIND", standard: "auto", value: choice{&c.Network, []string{"auto", "user", "bridge"}},
			help: "How QEMU attaches nat and hostonly machines: bridge (managed bridges; Linux, as root), user (forwarded ports on 127.0.0.1), or auto for bridges where the host allows them.",
		},
		{
			name: "bridge", arg: "NAME", standard: "", value: device{&c.Bridge},
			help: "Bridge of this host that bridged machines are plugged into, as in br0. Without one there are no bridged machines.",
		},
		{
			name: "nat-subnet", arg: "CIDR", standard: "", value: subnet{&c.NATSubnet},
			help: "Subnet of nat machines on a bridge, as in 10.20.30.0/24; none for a free one. It may not collide with a route of this host.",
		},
		{
			name: "guest-isolation", standard: "false", value: toggle{&c.Isolate},
			help: "Keep machines on bridges from reaching each other.",
		},
		{
			name: "forward", arg: "PORTS", standard: "", value: ports{&c.Forward}, list: true,
			help: "TCP ports of the guest that user networking forwards beside 22, as in 80,443. May be repeated.",
		},
		{
			name: "creations", arg: "N", standard: "16", value: number{&c.Creations, 1, 1000},
			help: "How many unfinished creations there may be at once, 1 to 1000. Requests beyond are answered with 503.",
		},
		{
			name: "vms", arg: "N", standard: "1000", value: number{&c.VMs, 1, 100_000},
			help: "How many machines there may be in all, 1 to 100000. Requests beyond are answered with 503.",
		},
		{
			name: "memory-reserve", arg: "SIZE", standard: "512MiB", value: size{&c.MemoryReserve, 0},
			help: "Memory of the host that machines are not promised, as in 2GiB, or in bytes. Requests for more than is left are answered with 503.",
		},
		{
			name: "max-lifetime", arg: "DURATION", standard: "", value: lifetime{&c.MaxLifetime},
			help: "How long a machine may live at most, as in 12h, before the daemon destroys it by itself. It is also the lifetime of those that ask for none.",
		},
		{
			name: "connections", arg: "N", standard: "1000", value: number{&c.Connections, 1, 65535},
			help: "How many connections of clients there may be at once, 1 to 65535. Those beyond wait.",
		},
		{
			name: "callback-secret-file", arg: "FILE", standard: "", value: path{at: &c.SecretFile, home: home, optional: true},
			help: "File with the secrets that sign callbacks: whsec_ and 24 to 64 bytes in base64, one a line. With several each signs, so that one can replace another. SIGHUP reads it anew.",
		},
		{
			name: "image-max-bytes", arg: "SIZE", standard: "256GiB", value: size{&c.ImageMaxBytes, minImage},
			help: "Largest unpacked image, as in 256GiB, or in bytes; at least 1MiB.",
		},
		{
			name: "image-max-download", arg: "SIZE", standard: "64GiB", value: size{&c.ImageMaxDownload, minImage},
			help: "Largest image archive, as in 64GiB, or in bytes; at least 1MiB.",
		},
		{
			name: "image-max-entries", arg: "N", standard: "10000", value: number{&c.ImageMaxEntries, 1, 1_000_000},
			help: "How many files and folders an image's archive may hold, 1 to 1000000.",
		},
		{
			name: "image-max-depth", arg: "N", standard: "16", value: number{&c.ImageMaxDepth, 1, 255},
			help: "How many folders deep a path in an image's archive may be, its file counted too, 1 to 255.",
		},
		{
			name: "image-max-path", arg: "N", standard: "1024", value: number{&c.ImageMaxPath, 1, 4096},
			help: "How many bytes long a path in an image's archive may be, 1 to 4096.",
		},
		{
			name: "image-max-ratio", arg: "N", standard: "200", value: number{&c.ImageMaxRatio, 1, 100_000},
			help: "How many bytes an image's archive may unpack to for each of its own, 1 to 100000. Runs of zeroes do not count.",
		},
		{
			name: "image-stall", arg: "DURATION", standard: "60s", value: span{&c.ImageStall, time.Second, time.Hour},
			help: "How long an image's server may send nothing before the download is tried again, 1s to 1h.",
		},
		{
			name: "image-max-idle", arg: "DURATION", standard: "5m", value: span{&c.ImageMaxIdle, time.Second, 24 * time.Hour},
			help: "How long a download may bring no byte at all, over all its tries and pauses, before the creation fails, 1s to 24h.",
		},
		{
			name: "cache-size", arg: "SIZE", standard: "0", value: size{&c.CacheSize, 0},
			help: "Disk that unpacked images may take, as in 100GiB, or in bytes; 0 for no bound but the disk's. Beyond it the least recently used ones that no machine needs are removed.",
		},
		{
			name: "disk-reserve", arg: "SIZE", standard: "1GiB", value: size{&c.DiskReserve, 0},
			help: "Free space of the data folder's disk that images leave to the host, as in 10GiB, or in bytes.",
		},
		{
			name: "allow-hosts", arg: "HOSTS", standard: "", value: hosts{&c.AllowHosts}, list: true,
			help: "Host names, IP addresses and networks that URLs of images and callbacks may lead to, separated by commas, as in images.example.com,.corp.example,10.0.0.0/8; none for all but link-local and metadata addresses. May be repeated.",
		},
		{
			name: "deny-hosts", arg: "HOSTS", standard: "", value: hosts{&c.DenyHosts}, list: true,
			help: "Those that they may not lead to. Addresses are held against the one that is really dialled. May be repeated.",
		},
		{
			name: "log-format", arg: "FORMAT", standard: "text", value: choice{&c.LogFormat, []string{"text", "json"}},
			help: "Form of the log on standard error: text or json.",
		},
		{
			name: "log-level", arg: "LEVEL", standard: "info", value: level{&c.LogLevel},
			help: "Least level that is logged: debug, info, warn or error.",
		},
		{
			name: "log-file", arg: "FILE", standard: "", value: path{at: &c.LogFile, home: home, optional: true},
			help: "File that the log is added to instead of standard error. SIGHUP opens it anew, for programs that rotate logs.",
		},
		{
			name: "config", arg: "FILE", standard: "", value: path{at: &c.File, home: home, optional: true}, reach: notInFile,
			help: "Configuration file: a line \"name = value\" for each setting, named as its flag without the dash. Lines that begin with # are comments.",
		},
		{
			name: "print-config", standard: "false", value: toggle{&c.PrintConfig}, reach: flagOnly,
			help: "Print every setting and where its value comes from, as a configuration file, and exit.",
		},
		{
			name: "print-unit", arg: "KIND", standard: "", value: unitKind(&c.PrintUnit), reach: flagOnly,
			help: "Print a unit for systemd, or a property list for launchd, that runs this program, and exit.",
		},
		{
			name: "clean-network", standard: "false", value: toggle{&c.CleanNetwork}, reach: flagOnly,
			help: "Remove every network device, firewall rule and DHCP server that daemons with this -data folder made, also under machines that run, and exit.",
		},
		{
			name: "version", standard: "false", value: toggle{&c.Version}, reach: flagOnly,
			help: "Print the version and exit.",
		},
	}
}

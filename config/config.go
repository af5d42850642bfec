// Package config reads and checks the daemon's settings once, from its flags, its environment and its configuration
// file.
package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"time"
)

// Config holds the checked settings.
type Config struct {
	Listen        string     // host:port, with port 0 for a free one; or unix: and an absolute path
	Data          string     // absolute path of the data folder
	Driver        string     // auto, qemu, vix, vmrun or vsphere
	Network       string     // auto, user or bridge: how QEMU connects nat and hostonly machines
	Forward       []int      // TCP ports of the guest that user networking forwards in addition to 22; no duplicates
	Creations     int        // largest number of unfinished creations, 1 to 1000
	ImageMaxBytes int64      // largest unpacked image in bytes, at least 1 MiB
	LogFormat     string     // text or json
	LogLevel      slog.Level // the lowest level that is logged
	LogFile       string     // absolute path of the log file, or "" for standard error
	Insecure      bool       // listen on more than loopback even without authentication
	HostNames     []string   // additional host names that clients may use for the daemon
	TokenFile     string     // absolute path of the file with the valid tokens, or ""
	TLSCert       string     // absolute paths of a certificate and its key; either both are set or neither is
	TLSKey        string
	DebugListen   string // loopback host:port of the profiler, or ""
	File          string // absolute path of the configuration file, or ""

	VMs            int           // largest number of machines, 1 to 100,000
	MemoryReserve  int64         // host memory in bytes that machines cannot use
	VMsPerToken    int           // largest number of machines of one named token, up to 100,000; 0 means no limit
	MemoryPerToken int64         // memory in bytes of all machines of one named token; 0 means no limit
	Start          string        // boot or memory: how machines start whose request does not say
	TemplateMemory int64         // bytes of the host's memory for templates; 0 means an eighth
	TemplateAge    time.Duration // of a template; 0 means the default
	Pools          []Pool        // machines that are kept prepared
	MaxLifetime    time.Duration // longest lifetime of a machine, 1 s to a year; 0 means no limit
	Connections    int           // largest number of client connections, 1 to 65,535
	SecretFile     string        // absolute path of the file with the callback secrets, or ""

	CredentialsFile string         // absolute path of the file with the credentials for image servers, or ""
	CAFile          string         // absolute path of a PEM file with more certificate authorities, or ""
	RootCAs         *x509.CertPool // those of the host and of CAFile; nil if there is no CAFile

	CacheSize        int64         // disk space for unpacked images in bytes; 0 means the whole disk
	DiskReserve      int64         // disk space in bytes that images leave free
	ImageMaxDownload int64         // largest archive in bytes, at least 1 MiB
	ImageMaxEntries  int           // largest number of files and folders in an archive, 1 to a million
	ImageMaxDepth    int           // largest number of elements of a path in an archive, 1 to 255
	ImageMaxPath     int           // longest path in an archive in bytes, 1 to 4,096
	ImageMaxRatio    int           // largest ratio of unpacked bytes to bytes of the archive, 1 to 100,000
	ImageMaxDisk     int64         // largest virtual disk of an image in bytes, at least 1 MiB
	ImageStall       time.Duration // how long an image server may send nothing, 1 s to an hour
	ImageMinRate     int64         // bytes a second that an image server must send over ImageStall; 0 means any number
	ImageMaxIdle     time.Duration // how long a download may receive nothing over all its retries, 1 s to a day
	AllowHosts       []string      // names, addresses and networks that URLs may use; empty means all
	DenyHosts        []string      // names, addresses and networks that URLs may not use

	VIXLibrary     string // absolute path of VMware's VIX library, or "" to search for it
	VMRun          string // absolute path of VMware's command vmrun, or "" to search for it
	VIXHostOptions int    // options for the connection to VMware

	VSphere             VSphere // a vCenter or ESXi
	vspherePasswordFile string  // absolute path of the file with the account's password, or ""

	Bridge    string // host bridge for bridged machines, or ""
	NATSubnet string // IPv4 subnet of nat machines on a bridge, in CIDR form, or "" for a free one
	Isolate   bool   // machines on bridges cannot reach each other

	Version      bool   // print the version and exit; nothing else is set then
	PrintConfig  bool   // print the configuration and exit
	CleanNetwork bool   // remove the networks of the data folder and exit
	CheckVMware  string // check VMware with this .vmx, or a machine of its own if it is CheckOwn, and exit; or ""
	PrintUnit    string // systemd, launchd or windows: print the unit for it and exit; nothing else is set then

	from map[string]string // the source of each setting's value
}

// HelpError is the error of [Load] if the arguments ask for help.
type HelpError struct {
	Text string // ends in a newline
}

func (e *HelpError) Error() string { return e.Text }

// Load reads the settings. A flag takes precedence over its environment variable, that over the configuration file, and
// that over the default. args are the program's arguments without its name. An empty variable counts as unset.
//
// Load reads only the file that -config names, and the working directory for relative paths. Its error lists every
// invalid value, one per line: the setting, the source of the value, and what is allowed. If the arguments ask for
// help, the error is a [*HelpError].
func Load(args []string, getenv func(string) string) (Config, error) {
	c, err := load(args, getenv)
	if _, help := errors.AsType[*HelpError](err); err != nil && !help {
		err = &settingsError{err}
	}
	return c, err
}

// settingsError is an error in the settings.
type settingsError struct{ error }

func (e *settingsError) Unwrap() error { return e.error }

// ExitCode returns the exit code of a daemon that ends with the error: 2 if its settings are invalid, as of the command
// line's verbs, and otherwise 1.
func ExitCode(err error) int {
	if _, invalid := errors.AsType[*settingsError](err); invalid {
		return 2
	}
	return 1
}

func load(args []string, getenv func(string) string) (Config, error) {
	c := Config{from: make(map[string]string)}
	table := c.settings(getenv(homeVariable))
	flags, err := readFlags(table, args)
	if err != nil {
		return Config{}, err
	}
	if on, err := strconv.ParseBool(flags["version"].value); err == nil && on {
		return Config{Version: true}, nil
	}
	if unit, ok := flags["print-unit"]; ok {
		err := unitKind(&c.PrintUnit).Set(unit.value)
		if err != nil {
			return Config{}, settingError("print-unit", unit, err)
		}
		return Config{PrintUnit: c.PrintUnit}, nil
	}
	sources := []source{flags, readEnv(table, getenv)}
	if v := lookup("config", sources); v.value != "" {
		name, err := absolute(v.value, getenv(homeVariable))
		if err != nil {
			return Config{}, settingError("config", v, err)
		}
		file, err := readFile(table, name)
		if err != nil {
			return Config{}, err
		}
		sources = append(sources, file)
	}
	if lookup("driver", sources).value == "vsphere" {
		sources = append(sources, govcDefaults(getenv))
	}
	sources = append(sources, defaults(table, getenv))

	var errs []error
	for _, s := range table {
		v := lookup(s.name, sources)
		c.from[s.name] = v.from
		if err := s.value.Set(v.value); err != nil {
			errs = append(errs, settingError(s.name, v, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	if err := errors.Join(c.check(), c.checkVSphere(getenv)); err != nil {
		return Config{}, err
	}
	return c, nil
}

// check checks the settings that depend on each other.
func (c *Config) check() error {
	if !c.Insecure && c.TokenFile == "" && !isLoopback(c.Listen) {
		return settingError("listen", given{c.Listen, c.from["listen"]}, errors.New("requests are not authenticated, so everybody who can reach this address could create and destroy machines: listen on 127.0.0.1, require tokens with -token-file, or add -insecure to allow it"))
	}
	switch {
	case c.TokenFile == "" && c.VMsPerToken > 0:
		return settingError("vms-per-token", given{strconv.Itoa(c.VMsPerToken), c.from["vms-per-token"]}, errors.New("there are no tokens: add -token-file, and give the tokens names in it"))
	case c.TokenFile == "" && c.MemoryPerToken > 0:
		return settingError("memory-per-token", given{strconv.FormatInt(c.MemoryPerToken, 10), c.from["memory-per-token"]}, errors.New("there are no tokens: add -token-file, and give the tokens names in it"))
	case c.TLSCert != "" && c.TLSKey == "":
		return settingError("tls-cert", given{c.TLSCert, c.from["tls-cert"]}, errors.New("a certificate needs its key: add -tls-key"))
	case c.TLSKey != "" && c.TLSCert == "":
		return settingError("tls-key", given{c.TLSKey, c.from["tls-key"]}, errors.New("a key needs its certificate: add -tls-cert"))
	}
	return nil
}

// userInfo matches the user and password in a URL, which must not be in an error.
var userInfo = regexp.MustCompile(`://[^/]*@`)

func settingError(name string, v given, err error) error {
	return fmt.Errorf("-%s %q (%s): %w", name, userInfo.ReplaceAllString(v.value, "://(hidden)@"), v.from, err)
}

// Package config reads every setting of the daemon once, from its flags, its
// environment and its configuration file, and checks it.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"
)

// Config holds the settings, checked and ready to use.
type Config struct {
	Listen        string     // host:port, the port 0 for a free one; or unix: and an absolute path
	Data          string     // absolute path of the folder with everything that is kept
	Driver        string     // auto, qemu or vix
	Network       string     // auto, user or bridge: what QEMU attaches nat and hostonly machines to
	Forward       []int      // TCP ports of the guest, beside 22, that user-mode networking forwards; each once
	Creations     int        // unfinished creations at once, 1 to 1000
	ImageMaxBytes int64      // bytes of the largest unpacked image, at least 1 MiB
	LogFormat     string     // text or json
	LogLevel      slog.Level // the least level that is logged
	LogFile       string     // absolute path of the log file, "" for standard error
	Insecure      bool       // listening beyond loopback without authentication is accepted
	HostNames     []string   // by which clients may address the daemon, beside those that it knows
	TokenFile     string     // absolute path of the file with the clients' tokens, "" for none
	TLSCert       string     // absolute paths of a certificate and its key, both or neither "" for none
	TLSKey        string
	DebugListen   string // host:port on loopback of the profiler, "" for none
	File          string // absolute path of the configuration file, "" for none

	VMs           int           // machines in all, 1 to 100,000
	MemoryReserve int64         // bytes of the host's memory that machines are not promised
	MaxLifetime   time.Duration // of a machine, 1 s to a year; 0 for no bound
	Connections   int           // of clients at once, 1 to 65,535
	SecretFile    string        // absolute path of the file with the callbacks' secrets, "" for none

	CacheSize        int64         // bytes of disk that unpacked images may take; 0 for no bound but the disk's
	DiskReserve      int64         // bytes of the disk that images leave to the host
	ImageMaxDownload int64         // bytes of the largest archive, at least 1 MiB
	ImageMaxEntries  int           // files and folders of an archive, 1 to a million
	ImageMaxDepth    int           // elements of a path in an archive, 1 to 255
	ImageMaxPath     int           // bytes of a path in an archive, 1 to 4,096
	ImageMaxRatio    int           // bytes written for each byte of an archive, 1 to 100,000
	ImageStall       time.Duration // how long an image's server may send nothing, 1 s to an hour
	ImageMaxIdle     time.Duration // how long a download may bring no byte over all its tries, 1 s to a day
	AllowHosts       []string      // names, addresses and networks that URLs may lead to; none for all
	DenyHosts        []string      // and may not

	VIXLibrary     string // absolute path of VMware's VIX library, "" for where its installers put it
	VIXHostOptions int    // bits to connect to VMware with

	Bridge    string // the host's bridge of bridged machines, "" for none
	NATSubnet string // IPv4 subnet of nat machines on a bridge, in CIDR form; "" for a free one
	Isolate   bool   // machines on bridges do not reach each other

	Version      bool   // print the version and exit; nothing else is set then
	PrintConfig  bool   // print the configuration and exit
	CleanNetwork bool   // remove the networks of Data and exit
	PrintUnit    string // "systemd" or "launchd": print that one's unit and exit; nothing else is set then

	from map[string]string // where the value of each setting was found
}

// HelpError is returned by Load when the arguments ask for help.
type HelpError struct {
	Text string // ends in a newline
}

func (e *HelpError) Error() string { return e.Text }

// Load reads the settings: a flag goes before its environment variable, that
// before the configuration file, and that before the default. Args are the
// program's arguments without its name. An empty variable counts as unset.
//
// It touches nothing but the file that -config names, and asks the system for
// the working directory where a path is relative to it. Its error tells of
// every bad value, one a line: which setting, where the value came from, and
// what would be right. Where help is asked for it is a *HelpError.
func Load(args []string, getenv func(string) string) (Config, error) {
	c := Config{from: make(map[string]string)}
	table := c.settings(getenv("HOME"))
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
			return Config{}, bad("print-unit", unit, err)
		}
		return Config{PrintUnit: c.PrintUnit}, nil
	}
	layers := []layer{flags, readEnv(table, getenv)}
	if at := find("config", layers); at.value != "" {
		name, err := absolute(at.value, getenv("HOME"))
		if err != nil {
			return Config{}, bad("config", at, err)
		}
		file, err := readFile(table, name)
		if err != nil {
			return Config{}, err
		}
		layers = append(layers, file)
	}
	layers = append(layers, defaults(table, getenv))

	var errs []error
	for _, s := range table {
		at := find(s.name, layers)
		c.from[s.name] = at.from
		if err := s.value.Set(at.value); err != nil {
			errs = append(errs, bad(s.name, at, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	if err := c.check(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// check holds the settings against each other.
func (c *Config) check() error {
	if !c.Insecure && c.TokenFile == "" && !loopback(c.Listen) {
		return bad("listen", entry{c.Listen, c.from["listen"]}, errors.New("requests are not authenticated, so whoever reaches this address could create and destroy machines: listen on 127.0.0.1, give clients tokens with -token-file, or add -insecure where all who reach it may do that"))
	}
	switch {
	case c.TLSCert != "" && c.TLSKey == "":
		return bad("tls-cert", entry{c.TLSCert, c.from["tls-cert"]}, errors.New("a certificate is of no use without its key: add -tls-key"))
	case c.TLSKey != "" && c.TLSCert == "":
		return bad("tls-key", entry{c.TLSKey, c.from["tls-key"]}, errors.New("a key is of no use without its certificate: add -tls-cert"))
	}
	return nil
}

func bad(name string, at entry, err error) error {
	return fmt.Errorf("-%s %q (%s): %w", name, at.value, at.from, err)
}

package config

import (
	"flag"
	"strings"
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
			name: "listen", arg: "HOST:PORT", standard: "127.0.0.1:12345", value: address{&c.Listen},
			help: "Address of the HTTP API; port 0 takes a free one. The variable PORT alone sets the port of the default.",
		},
		{
			name: "insecure", standard: "false", value: toggle{&c.Insecure},
			help: "Allow a -listen address that other hosts reach, though requests are not authenticated.",
		},
		{
			name: "data", arg: "DIR", standard: "~/.osx-builder", value: path{at: &c.Data, home: home},
			help: "Folder for images, machines and their records. One daemon at a time uses it.",
		},
		{
			name: "driver", arg: "NAME", standard: "auto", value: choice{&c.Driver, []string{"auto", "qemu", "vix"}},
			help: "Hypervisor: qemu, vix (VMware), or auto for VMware where it is installed and else QEMU.",
		},
		{
			name: "network", arg: "KIND", standard: "auto", value: choice{&c.Network, []string{"auto", "user", "bridge"}},
			help: "How QEMU attaches nat machines: bridge (a managed bridge; Linux, as root), user (forwarded ports on 127.0.0.1), or auto for the bridge where the host allows it.",
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
			name: "image-max-bytes", arg: "SIZE", standard: "256GiB", value: size{&c.ImageMaxBytes},
			help: "Largest unpacked image, as in 256GiB, or in bytes; at least 1MiB.",
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
			name: "config", arg: "FILE", standard: "", value: path{at: &c.File, home: home, optional: true}, reach: notInFile,
			help: "Configuration file: a line \"name = value\" for each setting, named as its flag without the dash. Lines that begin with # are comments.",
		},
		{
			name: "print-config", standard: "false", value: toggle{&c.PrintConfig}, reach: flagOnly,
			help: "Print every setting and where its value comes from, as a configuration file, and exit.",
		},
		{
			name: "version", standard: "false", value: toggle{&c.Version}, reach: flagOnly,
			help: "Print the version and exit.",
		},
	}
}

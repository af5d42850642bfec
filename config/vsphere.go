package config

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// VSphere holds the settings of the vSphere driver. Its fields are those of the driver's own settings.
type VSphere struct {
	URL          string                 // https, without user information
	Username     string                 // of the service account
	ReadPassword func() (string, error) // reads the file, or returns the value of a GOVC variable; nil unless Driver is vsphere
	Datacenter   string                 // names or inventory paths, or "" for the only one
	Cluster      string
	Pool         string
	Folder       string
	Datastore    string
	Networks     map[string]string // port groups by network type
	CAFile       string            // absolute path of a PEM file, or ""
	Thumbprint   string            // of the server's certificate, or ""
	Insecure     bool              // trust any certificate
}

// networkTypes are those that machines can ask for.
var networkTypes = []string{"nat", "hostonly", "bridged"}

// vsphereSettings are the rows of the vSphere driver.
func (c *Config) vsphereSettings(home string) []setting {
	v := &c.VSphere
	text := func(name, arg string, target *string, help string) setting {
		return setting{name: name, arg: arg, value: textValue{target}, help: help}
	}
	return []setting{
		{
			name: "vsphere-url", arg: "URL", value: serverValue{&v.URL},
			help: "Address of the vCenter or ESXi for -driver vsphere, such as https://vcenter.example.com. The default is GOVC_URL.",
		},
		text("vsphere-username", "NAME", &v.Username, "Account on vSphere. The default is GOVC_USERNAME."),
		{
			name: "vsphere-password-file", arg: "FILE", value: pathValue{target: &c.vspherePasswordFile, home: home, optional: true},
			help: "File whose first line is the account's password. It is read for each login. Without one the password is that of GOVC_PASSWORD.",
		},
		text("vsphere-datacenter", "NAME", &v.Datacenter, "Datacenter, if there is more than one. The default is GOVC_DATACENTER."),
		text("vsphere-cluster", "NAME", &v.Cluster, "Cluster or host that runs the machines. The default is GOVC_CLUSTER."),
		text("vsphere-pool", "NAME", &v.Pool, "Resource pool of the machines, instead of -vsphere-cluster. The default is GOVC_RESOURCE_POOL."),
		text("vsphere-folder", "NAME", &v.Folder, "Folder of the machines and templates. It is made if only its last element is missing. The default is GOVC_FOLDER."),
		text("vsphere-datastore", "NAME", &v.Datastore, "Datastore of the machines and templates. The default is GOVC_DATASTORE."),
		{
			name: "vsphere-network", arg: "TYPE=NAME", value: networksValue{&v.Networks}, list: true,
			help: "Port groups for the network types, as in nat=NAME,hostonly=NAME,bridged=NAME. Types without one are not available. May be repeated. The default is GOVC_NETWORK for nat.",
		},
		{
			name: "vsphere-ca-file", arg: "FILE", value: pathValue{target: &v.CAFile, home: home, optional: true},
			help: "PEM file with the authorities that vSphere's certificate is checked with, instead of the system's. The default is GOVC_TLS_CA_CERTS.",
		},
		{
			name: "vsphere-thumbprint", arg: "HEX", value: thumbprintValue{&v.Thumbprint},
			help: "SHA-256 or SHA-1 of vSphere's certificate, in pairs with colons, which is trusted then although no authority is known.",
		},
		{
			name: "vsphere-insecure", defaultValue: "false", value: boolValue{&v.Insecure},
			help: "Trust any certificate. GOVC_INSECURE alone is not enough.",
		},
	}
}

// govcDefaults returns the defaults that the variables of VMware's govc set.
func govcDefaults(getenv func(string) string) source {
	src := make(source)
	for name, variable := range map[string]string{
		"vsphere-url": "GOVC_URL", "vsphere-username": "GOVC_USERNAME", "vsphere-datacenter": "GOVC_DATACENTER",
		"vsphere-cluster": "GOVC_CLUSTER", "vsphere-pool": "GOVC_RESOURCE_POOL", "vsphere-folder": "GOVC_FOLDER",
		"vsphere-datastore": "GOVC_DATASTORE", "vsphere-ca-file": "GOVC_TLS_CA_CERTS", "vsphere-network": "GOVC_NETWORK",
	} {
		value := getenv(variable)
		switch {
		case value == "":
			continue
		case variable == "GOVC_NETWORK":
			value = "nat=" + value
		case variable == "GOVC_URL":
			value = govcURL(value, src)
		}
		if _, set := src[name]; !set || variable == "GOVC_USERNAME" {
			src[name] = given{value, "variable " + variable}
		}
	}
	return src
}

// govcURL returns the value of GOVC_URL without the user information that it may have. The user's name becomes the
// default of the account.
func govcURL(value string, src source) string {
	if !strings.Contains(value, "://") {
		value = "https://" + value
	}
	u, err := url.Parse(value)
	if err != nil {
		return "(GOVC_URL cannot be read)"
	}
	if name := u.User.Username(); name != "" {
		if _, set := src["vsphere-username"]; !set {
			src["vsphere-username"] = given{name, "variable GOVC_URL"}
		}
	}
	u.User = nil
	return u.String()
}

// govcPassword returns the password in the variables of govc, or "".
func govcPassword(getenv func(string) string) string {
	if p := getenv("GOVC_PASSWORD"); p != "" {
		return p
	}
	value := getenv("GOVC_URL")
	if !strings.Contains(value, "://") {
		value = "https://" + value
	}
	u, err := url.Parse(value)
	if err != nil {
		return ""
	}
	p, _ := u.User.Password()
	return p
}

// checkVSphere checks the settings of the vSphere driver, if that is chosen, and sets ReadPassword.
func (c *Config) checkVSphere(getenv func(string) string) error {
	if c.Driver != "vsphere" {
		return nil
	}
	v := &c.VSphere
	path, password := c.vspherePasswordFile, govcPassword(getenv)
	v.ReadPassword = func() (string, error) {
		if path == "" {
			return password, nil
		}
		return firstLine(path)
	}
	if insecure, err := strconv.ParseBool(getenv("GOVC_INSECURE")); err == nil && insecure && !v.Insecure {
		return errors.New("GOVC_INSECURE is set, which would trust any certificate: add -vsphere-insecure if you want that, or unset it and use -vsphere-ca-file or -vsphere-thumbprint")
	}
	switch {
	case v.URL == "":
		return errors.New("-driver vsphere needs the address of a vCenter or ESXi: add -vsphere-url")
	case v.Username == "":
		return errors.New("-driver vsphere needs an account: add -vsphere-username")
	case path == "" && password == "":
		return errors.New("-driver vsphere needs the account's password: write it to a file, run chmod 600, and add -vsphere-password-file")
	case v.Cluster != "" && v.Pool != "":
		return fmt.Errorf("-vsphere-cluster %q and -vsphere-pool %q exclude each other; keep one", v.Cluster, v.Pool)
	case len(v.Networks) == 0:
		return errors.New("-driver vsphere needs a port group for the machines: add -vsphere-network nat=NAME")
	}
	return nil
}

// firstLine returns the first line of a file of secrets. Errors contain nothing of it.
func firstLine(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" || len(b) > maxSecretFile {
		return "", fmt.Errorf("the first line of %s must be the password", path)
	}
	return line, nil
}

// textValue is any text.
type textValue struct{ target *string }

func (v textValue) String() string { return *v.target }

func (v textValue) Set(s string) error {
	if strings.TrimSpace(s) != s || strings.ContainsAny(s, "\r\n\x00") {
		return errors.New("must not begin or end with a space or have more than one line")
	}
	*v.target = s
	return nil
}

// serverValue is the URL of a server's API, or empty.
type serverValue struct{ target *string }

func (v serverValue) String() string { return *v.target }

func (v serverValue) Set(s string) error {
	if s == "" {
		*v.target = ""
		return nil
	}
	u, err := url.Parse(s)
	switch {
	case err == nil && u.User != nil:
		return errors.New("must not contain a user or password, which everybody on this host could read; use -vsphere-username and -vsphere-password-file")
	case err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("must be an https URL, as in https://vcenter.example.com")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/sdk"
	}
	*v.target = u.String()
	return nil
}

// networksValue is a list of port groups by network type.
type networksValue struct{ target *map[string]string }

func (v networksValue) String() string {
	var words []string
	for _, t := range networkTypes {
		if name, ok := (*v.target)[t]; ok {
			words = append(words, t+"="+name)
		}
	}
	return strings.Join(words, ",")
}

func (v networksValue) Set(s string) error {
	networks := make(map[string]string)
	for word := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(word) == "" {
			continue
		}
		t, name, _ := strings.Cut(word, "=")
		t, name = strings.TrimSpace(t), strings.TrimSpace(name)
		switch {
		case !slices.Contains(networkTypes, t) || name == "":
			return fmt.Errorf("%q must be nat=NAME, hostonly=NAME or bridged=NAME; separate several by commas", word)
		case networks[t] != "":
			return fmt.Errorf("%s is listed twice", t)
		}
		networks[t] = name
	}
	*v.target = nil
	if len(networks) > 0 {
		*v.target = networks
	}
	return nil
}

// thumbprintValue is the checksum of a certificate, or empty.
type thumbprintValue struct{ target *string }

func (v thumbprintValue) String() string { return *v.target }

func (v thumbprintValue) Set(s string) error {
	pairs := strings.Split(strings.ToUpper(s), ":")
	invalid := func(pair string) bool {
		_, err := strconv.ParseUint(pair, 16, 8)
		return err != nil || len(pair) != 2
	}
	if s != "" && (len(pairs) != 20 && len(pairs) != 32 || slices.ContainsFunc(pairs, invalid)) {
		return errors.New("must be 32 (SHA-256) or 20 (SHA-1) pairs of hex digits with colons, as in 3A:0F:…; openssl x509 -fingerprint -sha256 prints it")
	}
	*v.target = strings.ToUpper(s)
	return nil
}

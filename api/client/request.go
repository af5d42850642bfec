package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/tailscale/hujson"
)

// requestOptions are the flags that make up a request: a file, and flags that override fields of the file.
type requestOptions struct {
	file                                                          string
	name, image, checksum, checksumType                           string
	memory, disk, network, callback, toolsTimeout, expires, start string
	identity                                                      string
	cpus                                                          int
	forward                                                       []int
	gui                                                           bool

	labels, sshKeys          []string
	hostname, userData       string
	readyPort                int
	readyHTTP, readyDuration string

	set *pflag.FlagSet
}

// flagOf returns the flag that sets a field of a request, or "".
func flagOf(field string) string {
	return map[string]string{
		"name": "name", "image.url": "image", "image.checksum": "checksum", "image.checksum_type": "checksum-type", "cpus": "cpus",
		"memory": "memory", "disk": "disk", "network_type": "network", "forward": "forward", "launch_gui": "gui", "callback_url": "callback-url",
		"tools_init_timeout": "tools-timeout", "expires_in": "expires-in",
		"ready_when.port": "ready-port", "ready_when.http": "ready-http", "ready_timeout": "ready-timeout", "labels": "label",
		"ssh_authorized_keys": "ssh-key", "hostname": "hostname", "user_data": "user-data",
		"start": "start", "identity": "identity",
	}[field]
}

func (o *requestOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.set = f
	f.StringVarP(&o.file, "file", "f", "", "JSON file with the request, - for stdin; flags override its fields")
	f.StringVar(&o.name, "name", "", "name of the machine, which works wherever its id does")
	f.StringVar(&o.image, "image", "", "URL of the image's archive")
	f.StringVar(&o.checksum, "checksum", "", "checksum of the archive, in hex or as a line of sha256sum; auto computes it from the archive at the URL, auto:FILE from a local copy")
	f.StringVar(&o.checksumType, "checksum-type", "", "md5, sha1, sha256 or sha512 (default: inferred from the checksum; sha256 for auto)")
	f.IntVar(&o.cpus, "cpus", 0, "virtual processors")
	f.StringVar(&o.memory, "memory", "", "memory in IEC units, for example 1gib")
	f.StringVar(&o.disk, "disk", "", "size of the first disk in IEC units, for example 40gib; not smaller than the image's")
	f.StringVar(&o.network, "network", "", "nat, bridged or hostonly")
	f.IntSliceVar(&o.forward, "forward", nil, "TCP ports of the guest to forward if the daemon uses user networking, for example 80,443")
	f.BoolVar(&o.gui, "gui", false, "open the hypervisor's window")
	f.StringVar(&o.callback, "callback-url", "", "URL to which the document is posted when the machine is ready or failed")
	f.StringVar(&o.toolsTimeout, "tools-timeout", "", "the longest time until the guest responds, for example 90s")
	f.StringArrayVar(&o.labels, "label", nil, "label of the machine, for example job=1234; may be repeated")
	f.IntVar(&o.readyPort, "ready-port", 0, "wait until this TCP port of the guest answers, for example 22")
	f.StringVar(&o.readyHTTP, "ready-http", "", "with --ready-port: wait until this path returns a success over HTTP, for example /health")
	f.StringVar(&o.readyDuration, "ready-timeout", "", "the longest time until --ready-port answers, for example 10m")
	f.StringArrayVar(&o.sshKeys, "ssh-key", nil, "file with public keys that may log in, for example ~/.ssh/id_ed25519.pub; may be repeated")
	f.StringVar(&o.hostname, "hostname", "", "name that the guest gives itself (default: --name, with --ssh-key or --user-data)")
	f.StringVar(&o.userData, "user-data", "", "file that cloud-init reads in the guest: a script or a cloud-config")
	f.StringVar(&o.start, "start", "", "boot, or memory: continue a saved guest of the same image and size")
	f.StringVar(&o.identity, "identity", "", "renew: give the guest a machine-id, host name and SSH host keys of its own, by its agent")
	f.StringVar(&o.expires, "expires-in", "", "destroy the machine after this time, for example 2h")
	completeFlag(cmd, "start", "boot", "memory")
	completeFlag(cmd, "identity", "renew")
	completeFlag(cmd, "network", "nat", "bridged", "hostonly")
	completeFlag(cmd, "checksum-type", "md5", "sha1", "sha256", "sha512")
}

// setFile takes the file from the arguments: "create vm.json" is "create -f vm.json".
func (o *requestOptions) setFile(args []string) error {
	if err := checkArgs(args, 0, 1, ""); err != nil {
		return err
	}
	if len(args) == 1 {
		if o.file != "" {
			return fmt.Errorf("there are two files, %s and %s; one is allowed", o.file, args[0])
		}
		o.file = args[0]
	}
	if o.file == "" && o.image == "" {
		return errors.New("the request is missing: name a JSON file, or use --image and --checksum")
	}
	return nil
}

// nameFlags adds to the errors of a request's fields the flags that set them.
func (o *requestOptions) nameFlags(err error) error {
	var e *apiError
	if errors.As(err, &e) {
		for _, each := range e.all() {
			each.flag = flagOf(each.Field)
		}
	}
	return err
}

// body returns the request's JSON. Without flags, it is the file's content, unchanged.
func (o *requestOptions) body(ctx context.Context, c *cli, daemon *apiClient) ([]byte, error) {
	b := []byte("{}")
	if o.file != "" {
		var err error
		if b, err = readFile(o.file, c.stdin); err != nil {
			return nil, err
		}
	}
	fields := o.fields()
	if err := o.readGuestFiles(fields); err != nil {
		return nil, err
	}
	image := o.imageFields()
	if len(fields) == 0 && len(image) == 0 {
		return b, nil
	}
	request, err := parseObject(b)
	if err != nil {
		return nil, usageError("%s is not a JSON object: %w", o.file, err)
	}
	maps.Copy(request, fields)
	if len(image) > 0 {
		if err := o.mergeImage(ctx, c, daemon, request, image); err != nil {
			return nil, err
		}
	}
	return json.Marshal(request)
}

// fields returns the fields that flags set, by their names in the API.
func (o *requestOptions) fields() map[string]json.RawMessage {
	fields := make(map[string]json.RawMessage)
	for _, f := range []struct{ flag, field, value string }{
		{"memory", "memory", o.memory},
		{"disk", "disk", o.disk},
		{"network", "network_type", o.network},
		{"callback-url", "callback_url", o.callback},
		{"name", "name", o.name},
		{"start", "start", o.start},
		{"hostname", "hostname", o.hostname},
		{"identity", "identity", o.identity},
	} {
		if o.set.Changed(f.flag) {
			fields[f.field] = jsonString(f.value)
		}
	}
	for flag, field := range map[string]string{"tools-timeout": "tools_init_timeout", "expires-in": "expires_in", "ready-timeout": "ready_timeout"} {
		if o.set.Changed(flag) {
			fields[field] = durationJSON(o.set.Lookup(flag).Value.String())
		}
	}
	if o.set.Changed("label") {
		labels := make(map[string]string)
		for _, l := range o.labels {
			name, value, _ := strings.Cut(l, "=")
			labels[name] = value
		}
		fields["labels"], _ = json.Marshal(labels) // strings always marshal
	}
	if o.set.Changed("ready-port") || o.set.Changed("ready-http") {
		http := ""
		if o.readyHTTP != "" {
			http = fmt.Sprintf(`, "http": %s`, jsonString(o.readyHTTP))
		}
		fields["ready_when"] = fmt.Appendf(nil, `{"port": %d%s}`, o.readyPort, http)
	}
	if o.set.Changed("cpus") {
		fields["cpus"] = json.RawMessage(fmt.Sprint(o.cpus))
	}
	if o.set.Changed("gui") {
		fields["launch_gui"] = json.RawMessage(fmt.Sprint(o.gui))
	}
	if o.set.Changed("forward") {
		fields["forward"] = json.RawMessage(strings.ReplaceAll(fmt.Sprint(o.forward), " ", ","))
	}
	return fields
}

// readGuestFiles adds to the fields what the guest configures itself with.
func (o *requestOptions) readGuestFiles(fields map[string]json.RawMessage) error {
	if o.set.Changed("user-data") {
		b, err := readFile(o.userData, nil)
		if err != nil {
			return err
		}
		if !utf8.Valid(b) {
			return usageError("%s is not text; user data must be, for example a cloud-config or a MIME message", o.userData)
		}
		fields["user_data"] = jsonString(string(b))
	}
	if !o.set.Changed("ssh-key") {
		return nil
	}
	var keys []string
	for _, file := range o.sshKeys {
		b, err := readFile(file, nil)
		if err != nil {
			return err
		}
		if bytes.Contains(b, []byte("PRIVATE KEY")) {
			return usageError("%s is a private key, which stays on this computer; name the public one, %s.pub", file, file)
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				keys = append(keys, line)
			}
		}
	}
	fields["ssh_authorized_keys"], _ = json.Marshal(keys) // strings always marshal
	return nil
}

func (o *requestOptions) imageFields() map[string]string {
	image := make(map[string]string)
	for field, value := range map[string]string{"url": o.image, "checksum": o.checksum, "checksum_type": o.checksumType} {
		if value != "" {
			image[field] = value
		}
	}
	return image
}

// readFile reads a file that the user named, or stdin for "-".
func readFile(file string, stdin io.Reader) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(stdin)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return b, nil
}

// parseObject parses a JSON object. Like the daemon, it accepts comments and trailing commas.
func parseObject(b []byte) (map[string]json.RawMessage, error) {
	strict, err := hujson.Standardize(b)
	if err != nil {
		return nil, err
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(strict, &object); err != nil {
		return nil, err
	}
	if object == nil {
		return nil, fmt.Errorf("it is %s", strict)
	}
	return object, nil
}

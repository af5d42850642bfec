package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"github.com/tailscale/hujson"
)

// requestOptions are the flags that make up a request: a file, and flags that override fields of the file.
type requestOptions struct {
	file                                             string
	image, checksum, checksumType                    string
	memory, network, callback, toolsTimeout, expires string
	cpus                                             int
	forward                                          []int
	gui                                              bool

	set *pflag.FlagSet
}

func (o *requestOptions) addFlags(f *pflag.FlagSet) {
	o.set = f
	f.StringVarP(&o.file, "file", "f", "", "JSON file with the request, - for stdin; flags override its fields")
	f.StringVar(&o.image, "image", "", "URL of the image's archive")
	f.StringVar(&o.checksum, "checksum", "", "checksum of the archive in hex; auto computes it from the archive at the URL, auto:FILE from a local copy")
	f.StringVar(&o.checksumType, "checksum-type", "", "md5, sha1, sha256 or sha512 (default: inferred from the checksum's length)")
	f.IntVar(&o.cpus, "cpus", 0, "virtual processors")
	f.StringVar(&o.memory, "memory", "", "memory in IEC units, for example 1gib")
	f.StringVar(&o.network, "network", "", "nat, bridged or hostonly")
	f.IntSliceVar(&o.forward, "forward", nil, "TCP ports of the guest to forward if the daemon uses user networking, for example 80,443")
	f.BoolVar(&o.gui, "gui", false, "open the hypervisor's window")
	f.StringVar(&o.callback, "callback-url", "", "URL to which the document is posted when the machine is ready or failed")
	f.StringVar(&o.toolsTimeout, "tools-timeout", "", "the longest time until the guest responds, for example 90s")
	f.StringVar(&o.expires, "expires-in", "", "destroy the machine after this time, for example 2h")
}

// body returns the request's JSON. Without flags, it is the file's content, unchanged.
func (o *requestOptions) body(ctx context.Context, c *cli) ([]byte, error) {
	b := []byte("{}")
	if o.file != "" {
		var err error
		if b, err = readFile(o.file, c.stdin); err != nil {
			return nil, err
		}
	}
	fields := o.fields()
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
		if request["image"], err = o.mergeImage(ctx, &c.output, request["image"], image); err != nil {
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
		{"network", "network_type", o.network},
		{"callback-url", "callback_url", o.callback},
		{"tools-timeout", "tools_init_timeout", o.toolsTimeout},
		{"expires-in", "expires_in", o.expires},
	} {
		if o.set.Changed(f.flag) {
			fields[f.field] = jsonString(f.value)
		}
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

func (o *requestOptions) imageFields() map[string]string {
	image := make(map[string]string)
	for field, value := range map[string]string{"url": o.image, "checksum": o.checksum, "checksum_type": o.checksumType} {
		if value != "" {
			image[field] = value
		}
	}
	return image
}

// mergeImage overrides fields of the file's image. If the checksum is auto, mergeImage computes it. If there is no
// checksum type, mergeImage infers it from the length.
func (o *requestOptions) mergeImage(ctx context.Context, out *output, base json.RawMessage, overrides map[string]string) (json.RawMessage, error) {
	image := make(map[string]string)
	if base != nil {
		if err := json.Unmarshal(base, &image); err != nil {
			return nil, usageError("image in %s: %w", o.file, err)
		}
	}
	maps.Copy(image, overrides)
	if o.checksum != "" && o.checksumType == "" {
		image["checksum_type"] = inferChecksumType(o.checksum)
	}
	if source, ok := strings.CutPrefix(o.checksum, "auto"); ok {
		if source = strings.TrimPrefix(source, ":"); source == "" {
			source = image["url"]
		}
		sum, err := computeChecksum(ctx, out, source, image["checksum_type"])
		if err != nil {
			return nil, err
		}
		image["checksum"] = sum
	}
	return json.Marshal(image)
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

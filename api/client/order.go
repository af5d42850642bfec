package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"github.com/tailscale/hujson"
)

// order is the request for a machine: a file, and flags that go before what
// the file says.
type order struct {
	file                                           string
	image, checksum, checksumType                  string
	memory, network, callback, toolsTime, lifetime string
	cpus                                           int
	forward                                        []int
	gui                                            bool

	set *pflag.FlagSet
}

func (o *order) flags(f *pflag.FlagSet) {
	o.set = f
	f.StringVarP(&o.file, "file", "f", "", "JSON file with the request, - for standard input; flags go before what it says")
	f.StringVar(&o.image, "image", "", "URL of the image's archive")
	f.StringVar(&o.checksum, "checksum", "", "the archive's checksum in hex; auto computes it from what the URL serves now, auto:FILE from a copy at hand")
	f.StringVar(&o.checksumType, "checksum-type", "", "md5, sha1, sha256 or sha512 (default: told by the checksum's length)")
	f.IntVar(&o.cpus, "cpus", 0, "virtual processors")
	f.StringVar(&o.memory, "memory", "", "memory in IEC units, as in 1gib")
	f.StringVar(&o.network, "network", "", "nat, bridged or hostonly")
	f.IntSliceVar(&o.forward, "forward", nil, "TCP ports of the guest to forward where the network is the user's, as in 80,443")
	f.BoolVar(&o.gui, "gui", false, "open the hypervisor's window")
	f.StringVar(&o.callback, "callback-url", "", "URL that the document is posted to once the machine is ready or failed")
	f.StringVar(&o.toolsTime, "tools-timeout", "", "how long the guest may take to give a sign of life, as in 90s")
	f.StringVar(&o.lifetime, "expires-in", "", "how long the machine may live, as in 2h")
}

// body is the request's JSON. A file that no flag adds to is sent as it is.
func (o *order) body(ctx context.Context, c *cli) ([]byte, error) {
	b := []byte("{}")
	if o.file != "" {
		var err error
		if b, err = c.read(o.file); err != nil {
			return nil, err
		}
	}
	fields := o.fields()
	image := o.imageFields()
	if len(fields) == 0 && len(image) == 0 {
		return b, nil
	}
	all, err := object(b)
	if err != nil {
		return nil, usage("%s is no JSON object: %w", o.file, err)
	}
	for name, v := range fields {
		all[name] = v
	}
	if len(image) > 0 {
		if all["image"], err = o.mergeImage(ctx, c, all["image"], image); err != nil {
			return nil, err
		}
	}
	return json.Marshal(all)
}

// fields are those of the request that flags give, by the API's names.
func (o *order) fields() map[string]json.RawMessage {
	fields := make(map[string]json.RawMessage)
	for _, f := range []struct{ flag, field, value string }{
		{"memory", "memory", o.memory},
		{"network", "network_type", o.network},
		{"callback-url", "callback_url", o.callback},
		{"tools-timeout", "tools_init_timeout", o.toolsTime},
		{"expires-in", "expires_in", o.lifetime},
	} {
		if o.set.Changed(f.flag) {
			fields[f.field] = text(f.value)
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

func (o *order) imageFields() map[string]string {
	image := make(map[string]string)
	for field, value := range map[string]string{"url": o.image, "checksum": o.checksum, "checksum_type": o.checksumType} {
		if value != "" {
			image[field] = value
		}
	}
	return image
}

// mergeImage lays the flags over the file's image, computes a checksum that is
// to be computed, and tells a checksum's type by its length where nothing else
// does.
func (o *order) mergeImage(ctx context.Context, c *cli, base json.RawMessage, image map[string]string) (json.RawMessage, error) {
	all := make(map[string]string)
	if base != nil {
		if err := json.Unmarshal(base, &all); err != nil {
			return nil, usage("image in %s: %w", o.file, err)
		}
	}
	for field, value := range image {
		all[field] = value
	}
	if o.checksum != "" && o.checksumType == "" {
		all["checksum_type"] = sumType(o.checksum)
	}
	if source, ok := strings.CutPrefix(o.checksum, "auto"); ok {
		if source = strings.TrimPrefix(source, ":"); source == "" {
			source = all["url"]
		}
		sum, err := c.sum(ctx, source, all["checksum_type"])
		if err != nil {
			return nil, err
		}
		all["checksum"] = sum
	}
	return json.Marshal(all)
}

// read reads a file that the user named, or standard input.
func (c *cli) read(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(c.Stdin)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, &failure{exitUsage, err}
	}
	return b, nil
}

// object reads a JSON object, with the comments and trailing commas that the
// daemon takes too.
func object(b []byte) (map[string]json.RawMessage, error) {
	plain, err := hujson.Standardize(b)
	if err != nil {
		return nil, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(plain, &all); err != nil {
		return nil, err
	}
	if all == nil {
		return nil, fmt.Errorf("it is %s", plain)
	}
	return all, nil
}

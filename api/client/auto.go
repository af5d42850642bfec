package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// mergeImage overrides fields of the file's image. If the checksum is auto, mergeImage computes it once the daemon has
// checked everything else.
func (o *requestOptions) mergeImage(ctx context.Context, c *cli, daemon *apiClient, request map[string]json.RawMessage, overrides map[string]string) error {
	image := make(map[string]string)
	if base := request["image"]; base != nil {
		if err := json.Unmarshal(base, &image); err != nil {
			return usageError("image in %s must be an object of strings: %w", o.file, err)
		}
	}
	if o.checksum != "" && o.checksumType == "" {
		delete(image, "checksum_type") // that of the file's checksum
	}
	maps.Copy(image, overrides)
	if source, ok := strings.CutPrefix(o.checksum, "auto"); ok && (source == "" || source[0] == ':') {
		delete(image, "checksum")
		if err := o.checkRest(ctx, daemon, request, image); err != nil {
			return err
		}
		image["checksum_type"] = cmp.Or(image["checksum_type"], "sha256")
		sum, err := computeChecksum(ctx, &c.output, cmp.Or(strings.TrimPrefix(source, ":"), image["url"]), image["checksum_type"])
		if err != nil {
			return err
		}
		image["checksum"] = sum
	}
	return setImage(request, image)
}

func setImage(request map[string]json.RawMessage, image map[string]string) (err error) {
	request["image"], err = json.Marshal(image)
	return err
}

// checkRest lets the daemon check a request that lacks nothing but the checksum, before that is computed from a large
// file. The daemon always refuses such a request, and lists all invalid fields.
func (o *requestOptions) checkRest(ctx context.Context, daemon *apiClient, request map[string]json.RawMessage, image map[string]string) error {
	if err := setImage(request, image); err != nil {
		return err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	_, err = daemon.do(ctx, http.MethodPost, "/vms", body, nil)
	var e *apiError
	if !errors.As(err, &e) {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(e.all()), func(each *apiError) bool { return each.Field == "image.checksum" })
	if len(rest) > 0 {
		e.Errors = rest
		return o.nameFlags(e)
	}
	return o.checkName(ctx, daemon, request["name"])
}

// checkName returns an error if a machine has the name already. The daemon checks that last.
func (o *requestOptions) checkName(ctx context.Context, daemon *apiClient, value json.RawMessage) error {
	var name string
	if json.Unmarshal(value, &name) != nil || name == "" {
		return nil
	}
	m, err := daemon.machine(ctx, name)
	if err == nil && m.Name == name {
		return &exitError{exitConflict, fmt.Errorf("the name %q belongs to machine %s; choose another name with --name", name, m.ID)}
	}
	return nil
}

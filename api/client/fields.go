package client

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// fieldValue is the flag --field.
type fieldValue struct{ path *[]string }

func (f fieldValue) Set(text string) error {
	*f.path = strings.Split(text, ".")
	return nil
}

func (f fieldValue) String() string {
	if f.path == nil {
		return ""
	}
	return strings.Join(*f.path, ".")
}

// Type implements [pflag.Value].
func (fieldValue) Type() string { return "string" }

var _ pflag.Value = fieldValue{}

// withFieldFlag adds --field to a verb that prints a machine's document.
func (o *output) withFieldFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Var(fieldValue{&o.field}, "field", "print only this field of the document without quotes, such as id, image.url or nics.0.mac_address")
	return cmd
}

// printDocument writes a document to stdout, or only the field that --field names. A field that the document does not
// have now, such as the progress of a machine that is ready, is an empty line.
func (o *output) printDocument(document []byte) error {
	if len(o.field) == 0 || len(document) == 0 {
		_, err := o.stdout.Write(document)
		return err
	}
	value := json.RawMessage(document)
	for _, name := range o.field {
		value = member(value, name)
	}
	text := string(value)
	if s := ""; json.Unmarshal(value, &s) == nil {
		text = s
	}
	_, err := fmt.Fprintln(o.stdout, text)
	return err
}

// member returns an element of a JSON object or list, or nil if there is none.
func member(value json.RawMessage, name string) json.RawMessage {
	var object map[string]json.RawMessage
	if json.Unmarshal(value, &object) == nil {
		return object[name]
	}
	var list []json.RawMessage
	i, err := strconv.Atoi(name)
	if json.Unmarshal(value, &list) == nil && err == nil && i >= 0 && i < len(list) {
		return list[i]
	}
	return nil
}

// schema is a part of the daemon's OpenAPI document.
type schema struct {
	Ref        string            `json:"$ref"`
	Properties map[string]schema `json:"properties"`
	Items      *schema           `json:"items"`
	Any        json.RawMessage   `json:"additionalProperties"`
}

// checkField checks the path that --field names, before the verb changes anything. The daemon's own description of
// its documents decides, so that fields of other versions are known too.
func (o *output) checkField(ctx context.Context, daemon *apiClient) error {
	if len(o.field) == 0 {
		return nil
	}
	b, err := daemon.get(ctx, "/openapi.json")
	if err != nil {
		return err
	}
	var api struct {
		Components struct{ Schemas map[string]schema }
	}
	if err := json.Unmarshal(b, &api); err != nil {
		return fmt.Errorf("reading the daemon's OpenAPI document: %w", err)
	}
	at := schema{Ref: "#/components/schemas/VM"}
	for i, name := range o.field {
		at = resolve(at, api.Components.Schemas)
		next, known := at.member(name)
		if !known {
			return o.noSuchField(i, at)
		}
		at = next
	}
	return nil
}

// resolve returns the schema that a reference leads to.
func resolve(s schema, all map[string]schema) schema {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return all[name]
	}
	return s
}

// member returns the schema of an element.
func (s schema) member(name string) (schema, bool) {
	if next, ok := s.Properties[name]; ok {
		return next, true
	}
	if _, err := strconv.ParseUint(name, 10, 31); err == nil && s.Items != nil {
		return *s.Items, true
	}
	var any schema
	if len(s.Any) > 0 && json.Unmarshal(s.Any, &any) == nil {
		return any, true // an object with names of the user's choice, such as labels
	}
	return schema{}, false
}

// noSuchField is the error for element i of the path.
func (o *output) noSuchField(i int, parent schema) error {
	path, name := strings.Join(o.field[:i], "."), o.field[i]
	names := make([]string, 0, len(parent.Properties))
	for n := range parent.Properties {
		names = append(names, n)
	}
	slices.Sort(names)
	switch {
	case parent.Items != nil:
		return usageError("--field %s: %s is a list; the number of an element must follow, as in %s.0", fieldValue{&o.field}, path, path)
	case len(names) == 0:
		return usageError("--field %s: %s has no fields", fieldValue{&o.field}, path)
	case path == "":
		path = "a machine"
	}
	if similar := suggestion(name, names); similar != "" {
		return usageError("--field %s: %s has no field %s%s", fieldValue{&o.field}, path, name, similar)
	}
	return usageError("--field %s: %s has no field %s; the fields are %s", fieldValue{&o.field}, path, name, strings.Join(names, ", "))
}

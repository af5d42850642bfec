package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"osx-builder/vm"
)

// maxInvalid is the largest number of invalid fields that one answer lists.
const maxInvalid = 50

// fieldDecoder decodes a JSON object field by field, so that one answer can list all invalid fields. Package json stops
// at the first.
type fieldDecoder struct {
	root    reflect.Type
	invalid []*vm.Error
}

// object decodes a JSON object into a struct. prefix is the path of the object, ending in a dot, or "".
func (f *fieldDecoder) object(prefix string, text []byte, v reflect.Value) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		if prefix == "" {
			return &vm.Error{Code: vm.CodeInvalidField, Message: fmt.Sprintf("the body is %s; it must be a JSON object", kindOf(text))}
		}
		f.add(wrongType(strings.TrimSuffix(prefix, "."), text, v.Type()))
		return nil
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return &vm.Error{Code: codeJSON, Message: "the body is not JSON: " + truncate(err.Error()), Err: err}
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return &vm.Error{Code: codeJSON, Message: "the body is not JSON: " + truncate(err.Error()), Err: err}
		}
		if err := f.field(prefix, name.(string), value, v); err != nil {
			return err
		}
	}
	return nil
}

// field decodes the field of a struct that has the JSON name. Like package json, it ignores the case of the name and
// takes null for an absent value, unless the field's type decodes itself.
func (f *fieldDecoder) field(prefix, name string, text json.RawMessage, v reflect.Value) error {
	i := fieldIndex(v.Type(), name)
	if i < 0 {
		f.add(&vm.Error{
			Code: vm.CodeUnknownField, Field: truncate(prefix + name),
			Message: fmt.Sprintf("there is no field %s; the fields are %s", quote(prefix+name), strings.Join(fields(f.root, ""), ", ")),
		})
		return nil
	}
	path := prefix + jsonName(v.Type().Field(i))
	target := v.Field(i)
	if target.Kind() == reflect.Pointer && target.Type().Elem().Kind() == reflect.Struct {
		if string(text) == "null" {
			return nil
		}
		target.Set(reflect.New(target.Type().Elem()))
		target = target.Elem()
	}
	_, decodesItself := target.Addr().Interface().(json.Unmarshaler)
	if target.Kind() == reflect.Struct && !decodesItself {
		if string(text) == "null" {
			return nil
		}
		return f.object(path+".", text, target)
	}
	err := json.Unmarshal(text, target.Addr().Interface())
	if err == nil {
		return nil
	}
	target.SetZero()
	if known, ok := errors.AsType[*vm.Error](err); ok {
		f.add(known)
		return nil
	}
	f.add(wrongType(path, text, target.Type()))
	return nil
}

func (f *fieldDecoder) add(e *vm.Error) {
	if len(f.invalid) < maxInvalid {
		f.invalid = append(f.invalid, e)
	}
}

// wrongType is the error for a field whose JSON type does not fit.
func wrongType(path string, text []byte, want reflect.Type) *vm.Error {
	return &vm.Error{
		Code: vm.CodeInvalidField, Field: path,
		Message: fmt.Sprintf("%s is %s; it must be %s", path, kindOf(text), jsonType(want)),
	}
}

// kindOf describes a JSON value for messages: a number in full, of everything else the type.
func kindOf(text []byte) string {
	switch text = bytes.TrimSpace(text); text[0] {
	case '{':
		return "a JSON object"
	case '[':
		return "a JSON list"
	case '"':
		return "a JSON string"
	case 'n':
		return "null"
	default:
		return truncate(string(text))
	}
}

// jsonType names the JSON type of a Go type.
func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return jsonType(t.Elem())
	case reflect.Int:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice:
		return "a list of " + plural(jsonType(t.Elem()))
	default:
		return "a string"
	}
}

// plural turns a phrase of jsonType into the plural.
func plural(phrase string) string {
	return strings.TrimPrefix(strings.TrimPrefix(phrase, "an "), "a ") + "s"
}

// fieldIndex returns the index of the field with the JSON name, or -1.
func fieldIndex(t reflect.Type, name string) int {
	for i := range t.NumField() {
		if n := jsonName(t.Field(i)); n != "" && strings.EqualFold(n, name) {
			return i
		}
	}
	return -1
}

// jsonName returns the JSON name of a field, or "" if it is not part of the JSON.
func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return strings.TrimPrefix(name, "-")
}

// fields lists the JSON names of a struct's fields.
func fields(t reflect.Type, prefix string) []string {
	var names []string
	for i := range t.NumField() {
		f := t.Field(i)
		name := jsonName(f)
		if name == "" {
			continue
		}
		of := f.Type
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if _, decodesItself := reflect.New(of).Interface().(json.Unmarshaler); of.Kind() == reflect.Struct && !decodesItself {
			names = append(names, fields(of, prefix+name+".")...)
			continue
		}
		names = append(names, prefix+name)
	}
	return names
}

package qemu

import (
	"reflect"
	"testing"
)

// A template belongs to everything that its key depends on: if any of it differs, there is another template.
func TestTemplateKey(t *testing.T) {
	parts := keyParts{
		QEMU: "7.2.22", Image: "sha256-01", Network: "nat", Inner: "{}", Processor: "flags: sse2", Kernel: "6.1.0",
		Arguments: []string{"-cpu", "max"}, Files: []string{"/usr/bin/qemu 1 2 3", "disk"},
	}
	if one, again := parts.key(), parts.key(); one != again {
		t.Errorf("got the keys %s and %s of the same parts", one, again)
	}
	keys := map[string]string{parts.key(): "nothing"}
	check := func(what string, p keyParts) {
		t.Helper()
		if same, ok := keys[p.key()]; ok {
			t.Errorf("a change of %s gives the key of a change of %s", what, same)
		}
		keys[p.key()] = what
	}
	for i := range reflect.TypeFor[keyParts]().NumField() {
		changed := parts
		name := reflect.TypeFor[keyParts]().Field(i).Name
		switch f := reflect.ValueOf(&changed).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString(f.String() + " avx")
		default:
			f.Set(reflect.ValueOf([]string{f.Index(0).String(), f.Index(1).String() + ",-avx"}))
		}
		check(name, changed)
	}
	shifted := parts
	shifted.Arguments, shifted.Files = append([]string{}, "-cpu"), append([]string{"max"}, parts.Files...)
	check("the border of arguments and files", shifted)
}

package vm_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/vm"
)

// A machine is found by its id, its name and the start of its id, also after a restart. Its name is free once nothing
// of the machine is left.
func TestNames(t *testing.T) {
	h := newHarness(t).open()
	q := h.request()
	q.Name = "web"
	v := h.wait(h.create(q).ID)
	if v.Name != "web" {
		t.Errorf("got name %q, want web", v.Name)
	}
	check := func() {
		t.Helper()
		for _, ref := range []string{v.ID, "web", v.ID[:4], v.ID[:30]} {
			if id, err := h.vms.Resolve(ref, everyone); id != v.ID || err != nil {
				t.Errorf("%q: got %q, %v, want %s", ref, id, err, v.ID)
			}
		}
		for _, ref := range []string{"", v.ID[:3], v.ID + "0", "wob", "WEB", "../web"} {
			if id, err := h.vms.Resolve(ref, everyone); codeOf(err) != vm.CodeNotFound {
				t.Errorf("%q: got %q, %v, want %s", ref, id, err, vm.CodeNotFound)
			}
		}
		if _, err := h.vms.Create(t.Context(), q, ""); codeOf(err) != vm.CodeNameTaken {
			t.Errorf("the name again: got %v, want %s", err, vm.CodeNameTaken)
		}
	}
	check()
	h.close()
	h.open()
	check()
	must(t, h.vms.Destroy(t.Context(), v.ID))
	if _, err := h.vms.Resolve("web", everyone); codeOf(err) != vm.CodeNotFound {
		t.Errorf("once destroyed: got %v, want %s", err, vm.CodeNotFound)
	}
	q.CPUs = -1
	if _, err := h.vms.Create(t.Context(), q, ""); codeOf(err) != vm.CodeInvalidField {
		t.Errorf("got %v, want %s", err, vm.CodeInvalidField)
	}
	q.CPUs = 1
	h.create(q) // a refused request does not take the name
}

// A request that the capacity refuses does not take its name.
func TestRefusedRequestDoesNotTakeTheName(t *testing.T) {
	h := newHarness(t)
	h.options = func(o *vm.Options) { o.VMs = 1 }
	h.open()
	first := h.wait(h.create(h.request()).ID)
	q := h.request()
	q.Name = "web"
	if _, err := h.vms.Create(t.Context(), q, ""); codeOf(err) != vm.CodeNoCapacity {
		t.Fatalf("got %v, want %s", err, vm.CodeNoCapacity)
	}
	must(t, h.vms.Destroy(t.Context(), first.ID))
	h.create(q)
}

// The start of several ids is ambiguous, and the error lists the machines. An unknown reference suggests similar ones.
func TestSuggestions(t *testing.T) {
	h := newHarness(t)
	const first, second = "11112222-0000-4000-8000-000000000001", "11112222-0000-4000-8000-000000000002"
	must(t, os.MkdirAll(filepath.Join(h.dir, "vms"), 0o700))
	for id, name := range map[string]string{first: "web-1", second: "db"} {
		record := `{"version": 2, "id": "` + id + `", "phase": "failed", "spec": {"name": "` + name + `"}}`
		must(t, os.WriteFile(filepath.Join(h.dir, "vms", id+".json"), []byte(record), 0o600))
	}
	h.open()
	for ref, want := range map[string]string{
		"1111": first + " (web-1), " + second + " (db)",
		"111":  "did you mean " + first + " (web-1), " + second + " (db)? The start of an id needs at least 4 characters",
		"web1": "did you mean web-1?",
	} {
		_, err := h.vms.Resolve(ref, everyone)
		code := vm.CodeNotFound
		if ref == "1111" {
			code = vm.CodeAmbiguous
		}
		if e, _ := errors.AsType[*vm.Error](err); e == nil || e.Code != code || !strings.Contains(e.Message, want) {
			t.Errorf("%q: got %v, want %s with %q", ref, err, code, want)
		}
	}
	if id, err := h.vms.Resolve(second, everyone); id != second || err != nil {
		t.Errorf("got %q, %v, want %s", id, err, second)
	}
}

// One error lists all invalid fields. Its code, message and field are those of the first.
func TestAllInvalidFieldsAtOnce(t *testing.T) {
	h := newHarness(t)
	h.options = func(o *vm.Options) { o.Driver = limited{h.driver} }
	h.open()
	_, err := h.vms.Create(t.Context(), vm.Request{
		CPUs: 9, Memory: "1gb", NetworkType: vm.HostOnly, CallbackURL: "foo", ExpiresIn: -1, Name: "-",
		Invalid: []*vm.Error{{Code: vm.CodeUnknownField, Field: "x", Message: "there is no field x"}},
	}, "")
	e, _ := errors.AsType[*vm.Error](err)
	if e == nil {
		t.Fatalf("got %v, want an error", err)
	}
	var got []string
	for _, each := range e.Errors {
		got = append(got, each.Field+" "+string(each.Code))
	}
	want := "x unknown-field, cpus invalid-field, memory invalid-field, image.url invalid-field, image.checksum invalid-field, " +
		"callback_url invalid-field, name invalid-field, expires_in invalid-field, network_type network-unavailable"
	if strings.Join(got, ", ") != want || e.Field != "x" || e.Code != vm.CodeUnknownField || e.Message != "there is no field x" {
		t.Errorf("got %s %s %q with %q, want %q", e.Code, e.Field, e.Message, got, want)
	}
	for _, field := range []string{"image.url", "image.checksum"} {
		if !strings.Contains(e.Error()+messages(e), field+" is missing") {
			t.Errorf("got %q, want that %s is missing", messages(e), field)
		}
	}
}

func messages(e *vm.Error) (all string) {
	for _, each := range e.Errors {
		all += each.Message + "\n"
	}
	return all
}

// Publishers' forms of checksums are accepted. The document has the hex digits and the type.
func TestChecksumForms(t *testing.T) {
	h := newHarness(t).open()
	plain := h.request().Image
	for name, i := range map[string]vm.Image{
		"without a type":    {Checksum: plain.Checksum},
		"with a prefix":     {Checksum: "SHA256:" + strings.ToUpper(plain.Checksum)},
		"sha256sum":         {Checksum: plain.Checksum + "  box.tar.gz\n"},
		"sha256sum --tag":   {Checksum: "SHA256 (box (1).tar.gz) = " + plain.Checksum},
		"escaped file name": {Checksum: "\\" + plain.Checksum + " *box\\n.tar.gz", ChecksumType: "sha256"},
	} {
		q := h.request()
		q.Image.Checksum, q.Image.ChecksumType = i.Checksum, i.ChecksumType
		if v := h.create(q); v.Image != plain {
			t.Errorf("%s: got %+v, want %+v", name, v.Image, plain)
		}
	}
}

// An image is removed by the start of its checksum.
func TestImagesByTheStartOfTheirChecksum(t *testing.T) {
	h := newHarness(t).open()
	q := h.request()
	v := h.wait(h.create(q).ID)
	sum := q.Image.Checksum
	must(t, h.vms.Destroy(t.Context(), v.ID))
	for _, c := range []struct {
		name string
		code vm.Code
	}{
		{sum[:3], vm.CodeInvalidField},
		{"nothex", vm.CodeInvalidField},
		{"md5-" + sum[:4], vm.CodeImageNotFound},
		{"0123456789", vm.CodeImageNotFound},
		{"sha256-" + strings.ToUpper(sum[:8]), ""},
		{sum[:4], vm.CodeImageNotFound},
	} {
		if err := h.vms.Images().Remove(t.Context(), c.name); codeOf(err) != c.code {
			t.Errorf("%q: got %v, want %q", c.name, err, c.code)
		}
	}
}

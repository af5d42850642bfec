package vm_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// Machines are listed and destroyed by their labels, which survive a restart.
func TestLabels(t *testing.T) {
	h := newHarness(t).open()
	ids := map[string]string{}
	for name, labels := range map[string]vm.Labels{
		"both": {"job": "1", "stage": "test"}, "one": {"job": "1"}, "other": {"job": "2"}, "none": {},
	} {
		q := h.request()
		q.Labels = labels
		ids[name] = h.wait(h.create(q).ID).ID
	}
	h.close()
	h.open()
	for search, want := range map[string][]string{
		"job=1": {"both", "one"}, "job": {"both", "one", "other"}, "job=1 stage": {"both"}, "job=": nil, "job=3": nil, "": {"both", "one", "other", "none"},
	} {
		list, err := h.vms.List(t.Context(), vm.Filter{Labels: labelsOf(t, search)}, everyone)
		must(t, err)
		var got []string
		for _, v := range list {
			got = append(got, v.ID)
		}
		var wanted []string
		for _, name := range want {
			wanted = append(wanted, ids[name])
		}
		slices.Sort(got)
		slices.Sort(wanted)
		if !slices.Equal(got, wanted) {
			t.Errorf("%q: got %v, want %v", search, got, want)
		}
	}
	gone, err := h.vms.DestroyLabelled(t.Context(), labelsOf(t, "job=1"), everyone)
	if err != nil || len(gone) != 2 || !slices.Contains(gone, ids["both"]) || !slices.Contains(gone, ids["one"]) {
		t.Errorf("got %v, %v, want two machines", gone, err)
	}
	if gone, err := h.vms.DestroyLabelled(t.Context(), labelsOf(t, "job=1"), everyone); err != nil || len(gone) != 0 {
		t.Errorf("again: got %v, %v, want none", gone, err)
	}
	if _, err := h.vms.DestroyLabelled(t.Context(), nil, everyone); codeOf(err) != vm.CodeInvalidField {
		t.Errorf("without a label: got %v, want %s", err, vm.CodeInvalidField)
	}
	if list, err := h.vms.List(t.Context(), vm.Filter{}, everyone); err != nil || len(list) != 2 {
		t.Errorf("got %d machines, %v, want 2", len(list), err)
	}
}

// If one of the machines cannot be destroyed, the others are, and the error names it.
func TestDestroyLabelledFails(t *testing.T) {
	h := newHarness(t).open()
	q := h.request()
	q.Labels = vm.Labels{"job": "1"}
	stuck, other := h.wait(h.create(q).ID), h.wait(h.create(q).ID)
	h.driver.Hook = func(_ context.Context, s vmtest.Step, m vm.Machine) error {
		if s == vmtest.Destroy && m.ID == stuck.ID {
			return errors.New("no")
		}
		return nil
	}
	_, err := h.vms.DestroyLabelled(t.Context(), labelsOf(t, "job"), everyone)
	if codeOf(err) != vm.CodeHypervisor || !strings.Contains(err.Error(), stuck.ID) {
		t.Errorf("got %v, want %s that names %s", err, vm.CodeHypervisor, stuck.ID)
	}
	if _, err := h.vms.Get(t.Context(), other.ID); codeOf(err) != vm.CodeNotFound {
		t.Errorf("the other machine: got %v, want %s", err, vm.CodeNotFound)
	}
	h.driver.Hook = nil
}

func labelsOf(t *testing.T, text string) (all []vm.Label) {
	t.Helper()
	for _, one := range strings.Fields(text) {
		l, err := vm.ParseLabel(one)
		must(t, err)
		all = append(all, l)
	}
	return all
}

func TestInvalidLabels(t *testing.T) {
	h := newHarness(t).open()
	many := vm.Labels{}
	for i := range 33 {
		many[strings.Repeat("a", i+1)] = ""
	}
	for name, tt := range map[string]struct {
		labels vm.Labels
		field  string
	}{
		"empty name":       {vm.Labels{"": "x"}, "labels"},
		"blank":            {vm.Labels{"a b": "x"}, "labels"},
		"ends in a dot":    {vm.Labels{"a.": "x"}, "labels"},
		"long name":        {vm.Labels{strings.Repeat("a", 64): "x"}, "labels"},
		"long value":       {vm.Labels{"a": strings.Repeat("x", 257)}, "labels.a"},
		"control":          {vm.Labels{"a": "x\ny"}, "labels.a"},
		"too many":         {many, "labels"},
		"equals sign":      {vm.Labels{"a=b": "x"}, "labels"},
		"not UTF-8, value": {vm.Labels{"a": "\xff"}, "labels.a"},
	} {
		q := h.request()
		q.Labels = tt.labels
		_, err := h.vms.Create(t.Context(), q, "")
		if e, ok := err.(*vm.Error); !ok || e.Code != vm.CodeInvalidField || e.Field != tt.field {
			t.Errorf("%s: got %v, want %s at %s", name, err, vm.CodeInvalidField, tt.field)
		}
	}
	q := h.request()
	q.Labels = vm.Labels{"example.com/job_id-1": "Größe 5 = ∞"}
	if v := h.create(q); v.Labels["example.com/job_id-1"] != "Größe 5 = ∞" {
		t.Errorf("got labels %v, want those of the request", v.Labels)
	}
	for _, text := range []string{"", "=1", "a b=1"} {
		if _, err := vm.ParseLabel(text); codeOf(err) != vm.CodeInvalidField {
			t.Errorf("ParseLabel(%q): got %v, want %s", text, err, vm.CodeInvalidField)
		}
	}
}

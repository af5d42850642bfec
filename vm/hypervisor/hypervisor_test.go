package hypervisor_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/hypervisor"
)

// fakeDriver is a driver that only opens, reports readiness and closes.
type fakeDriver struct {
	vm.Driver
	ready          error
	opened, closed int
}

func (d *fakeDriver) Ready(context.Context) error { return d.ready }

func (d *fakeDriver) Describe(context.Context) map[string]string {
	return map[string]string{"acceleration": "none"}
}

func (d *fakeDriver) Close() error { d.closed++; return nil }

var (
	errMissing = &vm.Error{Code: vm.CodeHypervisorUnavailable, Message: "it is not installed"}
	errBroken  = errors.New("the folder cannot be read")
)

// candidate is one whose machines have a file of its name.
func candidate(name string, d *fakeDriver, err error) hypervisor.Candidate {
	return hypervisor.Candidate{
		Name: name, Product: strings.ToUpper(name),
		OwnsMachine: func(dir string) bool {
			_, err := os.Stat(filepath.Join(dir, name))
			return err == nil
		},
		Open: func() (hypervisor.Driver, error) {
			if err != nil {
				return nil, err
			}
			d.opened++
			return d, nil
		},
	}
}

func TestChoose(t *testing.T) {
	tests := map[string]struct {
		driver   string
		machines []string // a driver's name for each machine in the data folder

		firstOpen, firstReady   error
		secondOpen, secondReady error

		want     string   // the driver's name, "" for an error
		says     []string // in the log, or in the error
		keepsOut []string // of the log
	}{
		"auto takes the first":                {driver: "auto", want: "first", says: []string{"driver chosen", "asked=auto", "FIRST answers"}},
		"auto takes the next if one cannot":   {driver: "auto", firstOpen: errMissing, want: "second", says: []string{"driver chosen", "FIRST is not available"}, keepsOut: []string{errMissing.Message}},
		"auto takes the next if one is not":   {driver: "auto", firstReady: errMissing, want: "second", says: []string{"driver chosen", "FIRST is not available", "acceleration=none"}},
		"auto stops at an unexpected error":   {driver: "auto", firstOpen: errBroken, says: []string{"-driver auto", errBroken.Error()}},
		"auto starts with none ready":         {driver: "auto", firstOpen: errMissing, secondReady: errMissing, want: "second", says: []string{"no machine can be created", "WARN"}, keepsOut: []string{"driver chosen"}},
		"auto fails if the last fails":        {driver: "auto", firstOpen: errMissing, secondOpen: errBroken, says: []string{errBroken.Error()}},
		"auto stays with the last's machines": {driver: "auto", machines: []string{"second"}, want: "second", says: []string{"the machines of the data folder run on it"}},
		"auto waits for the last's return":    {driver: "auto", machines: []string{"second"}, secondReady: errMissing, want: "second", says: []string{"no machine can be created"}},
		"auto stays with the first's":         {driver: "auto", machines: []string{"first"}, want: "first", says: []string{"the machines of the data folder run on it"}},
		"auto insists on the first's":         {driver: "auto", machines: []string{"first"}, firstOpen: errMissing, says: []string{"-driver auto", errMissing.Message}},
		"auto leaves out one by name only":    {driver: "auto", firstReady: errMissing, secondReady: errMissing, want: "second", keepsOut: []string{"remote"}},
		"auto refuses machines of that one":   {driver: "auto", machines: []string{"remote"}, says: []string{"-driver auto", "1 machines", "run on REMOTE", "-driver remote"}},
		"by name only":                        {driver: "remote", want: "remote", says: []string{"why=requested"}},
		"by name":                             {driver: "second", want: "second", says: []string{"driver chosen", "why=requested"}},
		"by name, not to be opened":           {driver: "first", firstOpen: errMissing, says: []string{"-driver first", errMissing.Message}},
		"by name, not ready":                  {driver: "second", secondReady: errMissing, says: []string{"-driver second", errMissing.Message}},
		"by name, another's machines":         {driver: "first", machines: []string{"second", "second", "other"}, says: []string{"2 machines", "run on SECOND", "-driver second", "-data"}},
		"by name, unknown":                    {driver: "third", says: []string{"-driver third", "no such driver"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			data := openData(t, tc.machines)
			first, second := &fakeDriver{ready: tc.firstReady}, &fakeDriver{ready: tc.secondReady}
			remote := candidate("remote", &fakeDriver{}, nil)
			remote.OnlyByName = true
			var log bytes.Buffer
			d, got, err := hypervisor.Choose(t.Context(), hypervisor.Options{
				Driver: tc.driver, Data: data, Log: slog.New(slog.NewTextHandler(&log, nil)),
				Candidates: []hypervisor.Candidate{candidate("first", first, tc.firstOpen), candidate("second", second, tc.secondOpen), remote},
			})
			text := log.String()
			if tc.want == "" {
				if err == nil || d != nil {
					t.Fatalf("got %s, %v, want an error", got, err)
				}
				text = err.Error()
			} else if err != nil || got != tc.want {
				t.Fatalf("got %s, %v, want %s", got, err, tc.want)
			}
			for _, part := range tc.says {
				if !strings.Contains(text, part) {
					t.Errorf("got %q, want %q in it", text, part)
				}
			}
			for _, part := range tc.keepsOut {
				if strings.Contains(text, part) {
					t.Errorf("got %q, want no %q in it", text, part)
				}
			}
			for _, f := range []*fakeDriver{first, second} {
				if d != f && f.closed != f.opened || d == f && f.closed != 0 {
					t.Errorf("a driver was opened %d times and closed %d times, chosen: %v", f.opened, f.closed, d == f)
				}
			}
		})
	}
}

// openData opens a data folder with a machine of each of these drivers.
func openData(t *testing.T, machines []string) *vm.DataFolder {
	t.Helper()
	data, err := vm.OpenDataFolder(t.TempDir(), "a test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { data.Close() })
	for i, driver := range machines {
		dir := filepath.Join(data.Machines(), string(rune('a'+i)))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, driver), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return data
}

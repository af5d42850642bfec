package hypervisor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"osx-builder/vm/hypervisor"
)

// vmwareCandidates are the candidates of a program, in its order. Each hypervisor is absent, refuses or answers.
func vmwareCandidates(state map[string]string) (all []hypervisor.Candidate, drivers map[string]*fakeDriver) {
	drivers = make(map[string]*fakeDriver)
	for _, name := range []string{"vix", "vmrun", "qemu"} {
		d, absent := &fakeDriver{}, error(nil)
		switch state[name] {
		case "absent":
			absent = errMissing
		case "refuses":
			d.ready = errMissing
		}
		drivers[name] = d
		c := candidate(name, d, absent)
		if name != "qemu" {
			c.Product = "VMware"
			c.OwnsMachine = func(dir string) bool {
				_, err := os.Stat(filepath.Join(dir, "vmware"))
				return err == nil
			}
		}
		all = append(all, c)
	}
	return all, drivers
}

// Auto takes VIX if it answers, otherwise vmrun, and QEMU only if neither does. Machines of VMware keep it on VMware, by
// either way.
func TestChooseVMware(t *testing.T) {
	for _, vix := range []string{"absent", "refuses", "answers"} {
		for _, vmrun := range []string{"absent", "refuses", "answers"} {
			for _, machines := range []string{"", "vmware", "qemu"} {
				t.Run(fmt.Sprintf("vix %s, vmrun %s, machines %q", vix, vmrun, machines), func(t *testing.T) {
					var folders []string
					if machines != "" {
						folders = []string{machines}
					}
					want := "qemu"
					switch {
					case machines == "qemu":
					case vix == "answers":
						want = "vix"
					case vmrun == "answers":
						want = "vmrun"
					case machines == "vmware":
						want = ""
					}
					var log bytes.Buffer
					candidates, drivers := vmwareCandidates(map[string]string{"vix": vix, "vmrun": vmrun})
					d, got, err := hypervisor.Choose(t.Context(), hypervisor.Options{
						Driver: hypervisor.Auto, Candidates: candidates, Data: openData(t, folders),
						Log: slog.New(slog.NewTextHandler(&log, nil)),
					})
					if got != want || (err == nil) != (want != "") {
						t.Fatalf("got %q, %v, want %q", got, err, want)
					}
					if want != "" && strings.Count(log.String(), "driver chosen") != 1 {
						t.Errorf("got the log %q, want one line that says why", log.String())
					}
					if want == "vmrun" && machines == "" && !strings.Contains(log.String(), errMissing.Message) {
						t.Errorf("got the log %q, want why VIX is not used", log.String())
					}
					for name, f := range drivers {
						if d != f && f.opened != f.closed || d == f && f.closed != 0 {
							t.Errorf("%s was opened %d times and closed %d times", name, f.opened, f.closed)
						}
					}
				})
			}
		}
	}
}

// On Windows vmrun is the last candidate. Auto takes VIX there too if it answers, also for the machines of an earlier
// start. If neither is there, the error says why of both.
func TestChooseVMwareOnWindows(t *testing.T) {
	for _, vix := range []string{"absent", "refuses", "answers"} {
		for _, vmrun := range []string{"absent", "refuses", "answers"} {
			for _, machines := range [][]string{nil, {"vmware"}} {
				want := "vmrun" // it may start without VMware
				switch {
				case vix == "answers":
					want = "vix"
				case vmrun == "absent":
					want = ""
				}
				candidates, _ := vmwareCandidates(map[string]string{"vix": vix, "vmrun": vmrun})
				candidates[2].OnlyByName = true
				_, got, err := hypervisor.Choose(t.Context(), hypervisor.Options{
					Driver: hypervisor.Auto, Candidates: candidates, Data: openData(t, machines), Log: slog.New(slog.DiscardHandler),
				})
				if got != want || (err == nil) != (want != "") || err != nil && strings.Count(err.Error(), errMissing.Message) != 2 {
					t.Errorf("vix %s, vmrun %s, machines %q: got %q, %v, want %q", vix, vmrun, machines, got, err, want)
				}
			}
		}
	}
}

// By name, either driver of VMware continues with machines of VMware.
func TestChooseVMwareByName(t *testing.T) {
	for _, name := range []string{"vix", "vmrun"} {
		candidates, _ := vmwareCandidates(nil)
		_, got, err := hypervisor.Choose(t.Context(), hypervisor.Options{
			Driver: name, Candidates: candidates, Data: openData(t, []string{"vmware"}), Log: slog.New(slog.DiscardHandler),
		})
		if err != nil || got != name {
			t.Errorf("-driver %s: got %q, %v", name, got, err)
		}
	}
}

// lateDriver is a driver whose hypervisor answers from some time on.
type lateDriver struct {
	fakeDriver
	answers atomic.Bool
}

func (d *lateDriver) Ready(context.Context) error {
	if d.answers.Load() {
		return nil
	}
	return errMissing
}

// While there are no machines, a preferred hypervisor that answers later ends the context. Otherwise nothing does.
func TestAwaitBetter(t *testing.T) {
	for name, c := range map[string]struct {
		driver, chosen, record string
		want                   bool
	}{
		"VMware starts after the daemon": {hypervisor.Auto, "qemu", "", true},
		"VIX starts after vmrun":         {hypervisor.Auto, "vmrun", "", true},
		"the best is chosen":             {hypervisor.Auto, "vix", "", false},
		"requested by name":              {"qemu", "qemu", "", false},
		"there is a machine":             {hypervisor.Auto, "qemu", "a.json", false},
		"there is a tombstone":           {hypervisor.Auto, "qemu", "a.tombstone.json", true},
	} {
		t.Run(name, func(t *testing.T) {
			data := openData(t, nil)
			if c.record != "" {
				if err := os.MkdirAll(data.Machines(), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(data.Machines(), c.record), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Test(t, func(t *testing.T) {
				candidates, _ := vmwareCandidates(map[string]string{"vmrun": "absent"})
				vix := &lateDriver{}
				candidates[0].Open = func() (hypervisor.Driver, error) { vix.opened++; return vix, nil }
				o := hypervisor.Options{Driver: c.driver, Candidates: candidates, Data: data, Log: slog.New(slog.DiscardHandler)}
				ctx, stop := o.AwaitBetter(t.Context(), c.chosen)
				time.Sleep(time.Minute)
				synctest.Wait()
				if ctx.Err() != nil {
					t.Fatal("the context ended before VMware answered")
				}
				vix.answers.Store(true)
				time.Sleep(time.Minute)
				synctest.Wait()
				if got := errors.Is(hypervisor.Better(ctx), hypervisor.ErrBetter); got != c.want {
					t.Errorf("got %v, want %v", got, c.want)
				}
				stop()
				if vix.opened != vix.closed {
					t.Errorf("a driver was opened %d times and closed %d times", vix.opened, vix.closed)
				}
			})
		})
	}
}

// Serving begins again only for a better hypervisor.
func TestRepeat(t *testing.T) {
	n := 0
	err := hypervisor.Repeat(func() error {
		if n++; n < 3 {
			return errors.Join(hypervisor.ErrBetter)
		}
		return context.Canceled
	})
	if n != 3 || !errors.Is(err, context.Canceled) {
		t.Errorf("got %d times and %v, want 3 and %v", n, err, context.Canceled)
	}
}

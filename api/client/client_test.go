package client_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// The scripts type what people and CI jobs type, at the built program, which
// talks to a daemon over HTTP.
func TestScripts(t *testing.T) {
	type key struct{}
	program := harness.Binary(t)
	of := func(ts *testscript.TestScript) *rig { return ts.Value(key{}).(*rig) }
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			r, err := newRig(t, env)
			env.Values[key{}] = r
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// daemon start [FLAG...] and daemon stop
			"daemon": func(ts *testscript.TestScript, _ bool, args []string) {
				if args[0] == "stop" {
					of(ts).stop()
					return
				}
				ts.Check(of(ts).start(args[1:]))
				ts.Setenv("OSX_BUILDER_HOST", of(ts).daemon.URL)
			},
			// release lets the slow image go on.
			"release": func(ts *testscript.TestScript, _ bool, _ []string) {
				of(ts).open.Do(func() { close(of(ts).release) })
			},
			// exits CODE WORD... runs osx-builder with the words.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(program, args[1:]...)
				code := 0
				if e := new(exec.ExitError); errors.As(err, &e) {
					code = e.ExitCode()
				}
				want(ts, args[0], code)
			},
			// launch NAME WORD..., tells NAME TEXT, interrupt NAME, finish NAME CODE
			"launch":    func(ts *testscript.TestScript, _ bool, args []string) { of(ts).launch(ts, args[0], args[1:]) },
			"tells":     func(ts *testscript.TestScript, _ bool, args []string) { of(ts).tells(ts, args[0], args[1]) },
			"interrupt": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(of(ts).interrupt(args[0])) },
			"finish": func(ts *testscript.TestScript, _ bool, args []string) {
				want(ts, args[1], of(ts).finish(ts, args[0]))
			},
			"document": document,
			// envsubst FILE puts the script's variables into a file.
			"envsubst": func(ts *testscript.TestScript, _ bool, args []string) {
				text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
			},
			// only notes the id of the only machine.
			"only": func(ts *testscript.TestScript, _ bool, _ []string) { only(ts, of(ts).daemon) },
		},
	})
}

func want(ts *testscript.TestScript, code string, got int) {
	if w, err := strconv.Atoi(code); err != nil || got != w {
		ts.Fatalf("got exit code %d, want %s", got, code)
	}
}

// document holds that standard output is one JSON document, and notes the id
// in it. With words NAME=VALUE it holds the fields, too.
func document(ts *testscript.TestScript, _ bool, args []string) {
	var v map[string]any
	d := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	ts.Check(d.Decode(&v))
	if d.More() {
		ts.Fatalf("more follows the document")
	}
	if id, ok := v["id"].(string); ok {
		ts.Setenv("ID", id)
	}
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		if got := fmt.Sprint(v[name]); got != value {
			ts.Fatalf("%s: got %s, want %s", name, got, value)
		}
	}
}

func only(ts *testscript.TestScript, d *e2e.Daemon) {
	var list struct{ VMs []struct{ ID string } }
	a, err := d.Do("GET", "/vms", "", nil)
	ts.Check(err)
	ts.Check(a.JSON(&list))
	if len(list.VMs) != 1 {
		ts.Fatalf("got %d machines, want one", len(list.VMs))
	}
	ts.Setenv("ID", list.VMs[0].ID)
}

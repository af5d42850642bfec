package client_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rivo/uniseg"
	"github.com/rogpeppe/go-internal/testscript"

	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// The scripts run the built program like people and CI jobs do, against a daemon over HTTP.
func TestScripts(t *testing.T) {
	type key struct{}
	program := plainProgram(t)
	envOf := func(ts *testscript.TestScript) *scriptEnv { return ts.Value(key{}).(*scriptEnv) }
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			e, err := newScriptEnv(t, env, program)
			env.Values[key{}] = e
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// daemon start [FLAG...] and daemon stop
			"daemon": func(ts *testscript.TestScript, _ bool, args []string) {
				if args[0] == "stop" {
					envOf(ts).stop()
					return
				}
				ts.Check(envOf(ts).start(args[1:]))
				ts.Setenv("OSX_BUILDER_HOST", envOf(ts).daemon.URL)
			},
			// release sends the rest of the slow image.
			"release": func(ts *testscript.TestScript, _ bool, _ []string) {
				envOf(ts).releaseImage()
			},
			// exits CODE ARG... runs osx-builder and checks its exit code.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(program, args[1:]...)
				code := 0
				if e := new(exec.ExitError); errors.As(err, &e) {
					code = e.ExitCode()
				}
				checkExitCode(ts, args[0], code)
			},
			// launch NAME ARG... runs osx-builder in the background. expect NAME TEXT waits for output, interrupt NAME sends
			// SIGINT, and finish NAME CODE waits for the end and checks the exit code.
			"launch":    func(ts *testscript.TestScript, _ bool, args []string) { envOf(ts).launch(ts, args[0], args[1:]) },
			"expect":    func(ts *testscript.TestScript, _ bool, args []string) { envOf(ts).expect(ts, args[0], args[1]) },
			"interrupt": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(envOf(ts).interrupt(args[0])) },
			"finish": func(ts *testscript.TestScript, _ bool, args []string) {
				checkExitCode(ts, args[1], envOf(ts).finish(ts, args[0]))
			},
			// terminal [-in TEXT] CODE ARG... runs osx-builder on a terminal of 80 columns, on which the user types TEXT and Enter,
			// and checks its exit code. What the terminal received is in stdout. launch-terminal NAME ARG... is launch on a terminal.
			"terminal": func(ts *testscript.TestScript, _ bool, args []string) {
				input := ""
				if args[0] == "-in" {
					input, args = args[1]+"\n", args[2:]
				}
				envOf(ts).launchOnTerminal(ts, "terminal", input, args[1:])
				checkExitCode(ts, args[0], envOf(ts).finish(ts, "terminal"))
			},
			"launch-terminal": func(ts *testscript.TestScript, _ bool, args []string) {
				envOf(ts).launchOnTerminal(ts, args[0], "", args[1:])
			},
			// fits checks that no line of stdout is wider than a terminal of 80 columns.
			"fits":     checkWidth,
			"document": checkDocument,
			// envsubst FILE replaces the script's variables in a file.
			"envsubst": func(ts *testscript.TestScript, _ bool, args []string) {
				text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
			},
			// progresses waits until the machine $ID shows a progress.
			"progresses": func(ts *testscript.TestScript, _ bool, _ []string) { awaitProgress(ts, envOf(ts).daemon) },
			// setid sets $ID to the id of the only machine.
			"setid": func(ts *testscript.TestScript, _ bool, _ []string) { setID(ts, envOf(ts).daemon) },
		},
	})
}

// escapes matches the escape sequences of a terminal.
var escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")

// checkWidth checks that what was drawn on a terminal was never wider than 80 columns, even before it was drawn again.
func checkWidth(ts *testscript.TestScript, _ bool, _ []string) {
	text := escapes.ReplaceAllString(ts.ReadFile("stdout"), "")
	for _, line := range strings.FieldsFunc(text, func(c rune) bool { return c == '\r' || c == '\n' }) {
		if n := uniseg.StringWidth(line); n > 80 {
			ts.Fatalf("a line has %d columns, want at most 80: %q", n, line)
		}
	}
}

func checkExitCode(ts *testscript.TestScript, code string, got int) {
	if w, err := strconv.Atoi(code); err != nil || got != w {
		ts.Fatalf("got exit code %d, want %s", got, code)
	}
}

// checkDocument checks that stdout is one JSON document, and sets $ID to its id. Arguments NAME=VALUE check its fields.
func checkDocument(ts *testscript.TestScript, _ bool, args []string) {
	var v map[string]any
	d := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	ts.Check(d.Decode(&v))
	if d.More() {
		ts.Fatalf("stdout contains more than one document")
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

func awaitProgress(ts *testscript.TestScript, d *e2e.Daemon) {
	for deadline := time.Now().Add(harness.Timeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		a, err := d.Do("GET", "/vms/"+ts.Getenv("ID"), "", nil)
		ts.Check(err)
		var v struct{ Progress struct{ Bytes int64 } }
		if ts.Check(a.JSON(&v)); v.Progress.Bytes > 0 {
			return
		}
	}
	ts.Fatalf("machine %s shows no progress", ts.Getenv("ID"))
}

func setID(ts *testscript.TestScript, d *e2e.Daemon) {
	var list struct{ VMs []struct{ ID string } }
	a, err := d.Do("GET", "/vms", "", nil)
	ts.Check(err)
	ts.Check(a.JSON(&list))
	if len(list.VMs) != 1 {
		ts.Fatalf("got %d machines, want one", len(list.VMs))
	}
	ts.Setenv("ID", list.VMs[0].ID)
}

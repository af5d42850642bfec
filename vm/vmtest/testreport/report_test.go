package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what the reports are to testdata/*.txt")

// Each recording of go test -json in testdata gives the report beside it.
func TestReports(t *testing.T) {
	recordings, err := filepath.Glob("testdata/*.json")
	if err != nil || len(recordings) < 7 {
		t.Fatalf("got recordings %q, %v", recordings, err)
	}
	for _, recording := range recordings {
		name := strings.TrimSuffix(filepath.Base(recording), ".json")
		t.Run(name, func(t *testing.T) {
			in, err := os.Open(recording)
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			var got bytes.Buffer
			r := newReport(&got)
			r.read(in)
			r.summarize()
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if failed, want := r.anyFailed(), name != "pass"; failed != want {
				t.Errorf("got failed %v, want %v", failed, want)
			}
		})
	}
}

// A failed test's output is printed at the test's end, not at the package's.
func TestFailuresAreShownAtOnce(t *testing.T) {
	recording, err := os.ReadFile("testdata/fail.json")
	if err != nil {
		t.Fatal(err)
	}
	upToTheFailure, _, _ := strings.Cut(string(recording), `"Test":"TestParallelA"`)
	upToTheFailure = upToTheFailure[:strings.LastIndex(upToTheFailure, "\n")+1]
	var got bytes.Buffer
	newReport(&got).read(strings.NewReader(upToTheFailure))
	if !strings.Contains(got.String(), "got 1, want 2\n        second line\n") {
		t.Errorf("got %q", got.String())
	}
}

// What ends a test's process is among its messages, before those of tests. A daemon's log is not.
func TestCrashesAreMessages(t *testing.T) {
	for _, crash := range []string{"panic: boom", "fatal error: all goroutines are asleep", "WARNING: DATA RACE", "goleak: Errors on successful test run"} {
		output := "=== RUN   TestA\n    a_test.go:3: set up\n    a_test.go:4: time=2026-11-28T00:41:01.942Z level=INFO msg=creating\n        " + crash + "\n--- FAIL: TestA (0.00s)\n"
		want := []string{crash, "TestA", "    a_test.go:3: set up"}
		if diff := cmp.Diff(want, messages(output)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", crash, diff)
		}
	}
}

func TestExitStatus(t *testing.T) {
	cases := map[string]struct {
		args []string
		want int
	}{
		"all pass":                           {command("pass", 0), 0},
		"a test fails":                       {command("fail", 1), 1},
		"the first of two fails":             {append(append(command("fail", 3), "--"), command("pass", 0)...), 3},
		"the second of two fails":            {append(append(command("pass", 0), "--"), command("fail", 3)...), 3},
		"a failure with a status of success": {command("fail", 0), 1},
		"no events, but a status":            {[]string{"sh", "-c", "exit 2"}, 2},
		"a run that was killed":              {[]string{"sh", "-c", "cat testdata/killed.json; kill -9 $$"}, 1},
		"no such program":                    {[]string{"./no-such-program"}, 1},
		"no command":                         {nil, 2},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var stdout bytes.Buffer
			if got := run(context.Background(), c.args, &stdout, os.Stderr); got != c.want {
				t.Errorf("run(%q): got %d, want %d; stdout %s", c.args, got, c.want, &stdout)
			}
		})
	}
}

// The summary covers all commands.
func TestSeveralCommands(t *testing.T) {
	var stdout bytes.Buffer
	run(context.Background(), append(append(command("pass", 0), "--"), command("fail", 1)...), &stdout, os.Stderr)
	_, summary, _ := strings.Cut(stdout.String(), "\nPackages:\n")
	for _, want := range []string{"ok  \texample/pass\t", "FAIL\texample/fail\t"} {
		if !strings.Contains(summary, want) {
			t.Errorf("got the summary %q, want a line %q in it", summary, want)
		}
	}
}

// The commands run at once, each with a package of the same name: neither ends before the other has begun.
func TestCommandsRunAtOnce(t *testing.T) {
	dir := t.TempDir()
	meet := func(own, other, recording string) []string {
		return []string{
			"sh", "-c", `touch "$0"; until [ -e "$1" ]; do sleep 0.01; done; cat testdata/"$2".json`,
			filepath.Join(dir, own), filepath.Join(dir, other), recording,
		}
	}
	var stdout bytes.Buffer
	status := run(context.Background(), append(append(meet("a", "b", "pass"), "--"), meet("b", "a", "pass")...), &stdout, os.Stderr)
	_, summary, _ := strings.Cut(stdout.String(), "\nPackages:\n")
	if n := strings.Count(summary, "example/pass"); status != 0 || n != 2 {
		t.Errorf("got status %d and the summary %q, want two packages that pass", status, summary)
	}
}

// command prints a recording and ends with a status.
func command(recording string, status int) []string {
	return []string{"sh", "-c", `cat testdata/"$0".json; exit "$1"`, recording, string(rune('0' + status))}
}

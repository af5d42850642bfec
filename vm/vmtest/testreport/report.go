package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
)

// slowest is how many tests the summary lists.
const slowest = 10

// event is a line of go test -json, as go doc test2json describes it.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64 // seconds
}

// report collects the events of any number of test runs.
type report struct {
	mu      sync.Mutex // guards what follows, while runs are read
	w       io.Writer
	runs    []*testRun
	ended   []result // packages
	tests   []result // top-level tests
	skipped []string // tests, each with its reason
	failed  []string // top-level tests, each with its messages
}

// testRun is one run of go test.
type testRun struct {
	*report
	packages map[string]*pkg // those that run
}

// pkg is a package that runs.
type pkg struct {
	output  strings.Builder             // outside of any test
	verdict string                      // go test's own last line
	order   []string                    // the keys of tests, in the order of their first events
	tests   map[string]*strings.Builder // the output of each top-level test and its subtests until the test passes
}

// result is how a package or a top-level test ended.
type result struct {
	name    string
	action  string
	verdict string // of a package
	elapsed float64
}

func newReport(w io.Writer) *report { return &report{w: w} }

// read adds the events that go test -json prints, and passes on what is not an
// event. It may be called concurrently.
func (r *report) read(in io.Reader) {
	run := &testRun{r, make(map[string]*pkg)}
	r.mu.Lock()
	r.runs = append(r.runs, run)
	r.mu.Unlock()
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		run.addLine(line)
		if err != nil {
			return
		}
	}
}

func (r *testRun) addLine(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var e event
	if json.Unmarshal([]byte(line), &e) == nil && e.Action != "" {
		r.add(e)
	} else {
		fmt.Fprint(r.w, line)
	}
}

func (r *testRun) add(e event) {
	if e.Package == "" { // build-output, build-fail
		fmt.Fprint(r.w, e.Output)
		return
	}
	p := r.packages[e.Package]
	if p == nil {
		p = &pkg{tests: make(map[string]*strings.Builder)}
		r.packages[e.Package] = p
	}
	ends := e.Action == "pass" || e.Action == "fail" || e.Action == "skip"
	switch {
	case e.Action == "output":
		p.add(e)
	case ends && e.Test == "":
		r.endPackage(e, p)
	case ends:
		r.endTest(e, p)
	}
}

// add keeps what a package prints.
func (p *pkg) add(e event) {
	if e.Test == "" {
		if isVerdict(e.Output) {
			p.verdict = e.Output
		} else {
			p.output.WriteString(e.Output)
		}
		return
	}
	top, _, _ := strings.Cut(e.Test, "/")
	if p.tests[top] == nil {
		p.tests[top] = new(strings.Builder)
		p.order = append(p.order, top)
	}
	p.tests[top].WriteString(e.Output)
}

// isVerdict reports whether a line is the one that go test prints for a package.
func isVerdict(line string) bool {
	return strings.HasPrefix(line, "ok  \t") || strings.HasPrefix(line, "FAIL\t") || strings.HasPrefix(line, "?   \t")
}

// endTest prints the output of a top-level test that failed, and drops that
// of one that passed.
func (r *report) endTest(e event, p *pkg) {
	if e.Action == "skip" {
		r.skipped = append(r.skipped, e.Package+" "+e.Test+p.reason(e.Test))
	}
	if strings.Contains(e.Test, "/") {
		return
	}
	name := e.Package + " " + e.Test
	r.tests = append(r.tests, result{name: name, action: e.Action, elapsed: e.Elapsed})
	if e.Action == "fail" {
		r.fail(name, e.Test, p)
	}
	p.drop(e.Test)
}

// reason is the last line that a skipped test logged.
func (p *pkg) reason(test string) string {
	top, _, _ := strings.Cut(test, "/")
	if p.tests[top] == nil {
		return ""
	}
	lines := strings.Split(p.tests[top].String(), "\n")
	for _, line := range slices.Backward(lines) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			return ": " + line
		}
	}
	return ""
}

// drop removes the output of a test.
func (p *pkg) drop(test string) {
	delete(p.tests, test)
	p.order = slices.DeleteFunc(p.order, func(s string) bool { return s == test })
}

// endPackage prints the package's line. If the package failed, it first prints
// the tests that did not end, as after a panic or a timeout, and what the
// package printed outside of tests.
func (r *testRun) endPackage(e event, p *pkg) {
	if e.Action == "fail" {
		for _, test := range slices.Clone(p.order) {
			name := e.Package + " " + test + " (did not end)"
			r.tests = append(r.tests, result{name: name, action: "fail", elapsed: e.Elapsed})
			r.fail(name, test, p)
		}
		fmt.Fprint(r.w, p.output.String())
	}
	if p.verdict == "" {
		verdicts := map[string]string{"pass": "ok  ", "fail": "FAIL", "skip": "?   "}
		p.verdict = fmt.Sprintf("%s\t%s\t%.3fs\n", verdicts[e.Action], e.Package, e.Elapsed)
	}
	fmt.Fprint(r.w, p.verdict)
	r.ended = append(r.ended, result{name: e.Package, action: e.Action, verdict: p.verdict, elapsed: e.Elapsed})
	delete(r.packages, e.Package)
}

// fail prints all that a test and its subtests printed, and keeps their messages for
// the summary.
func (r *report) fail(name, test string, p *pkg) {
	text := ""
	if b := p.tests[test]; b != nil {
		text = b.String()
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	fmt.Fprintf(r.w, "\n######## output of %s\n%s########\n\n", name, text)
	r.failed = append(r.failed, strings.Join(append([]string{name}, messages(text)...), "\n    "))
}

// anyFailed reports whether a package or a test failed, or a package did not end.
func (r *report) anyFailed() bool {
	return slices.ContainsFunc(r.runs, func(run *testRun) bool { return len(run.packages) > 0 }) ||
		slices.ContainsFunc(slices.Concat(r.ended, r.tests), func(t result) bool { return t.action == "fail" })
}

// summarize prints the slowest tests, those that were skipped, the line of each package,
// the slowest first, and the tests that failed.
func (r *report) summarize() {
	for _, run := range r.runs {
		for _, name := range slices.Sorted(maps.Keys(run.packages)) { // go test itself was ended
			run.endPackage(event{Action: "fail", Package: name}, run.packages[name])
		}
	}
	slower := func(a, b result) int {
		return cmp.Or(cmp.Compare(b.elapsed, a.elapsed), strings.Compare(a.name, b.name))
	}
	slices.SortStableFunc(r.tests, slower)
	slices.SortStableFunc(r.ended, slower)
	var slow []string
	for _, t := range r.tests[:min(slowest, len(r.tests))] {
		slow = append(slow, fmt.Sprintf("%8.2fs %s", t.elapsed, t.name))
	}
	r.list("The slowest tests:", slow)
	r.list("Skipped tests:", r.skipped)
	if len(r.ended) > 0 {
		fmt.Fprintln(r.w, "\nPackages:")
	}
	for _, p := range r.ended {
		if p.action != "skip" { // without test files
			fmt.Fprint(r.w, p.verdict)
		}
	}
	r.list("Failed tests, whose whole output is above:", r.failed)
}

func (r *report) list(title string, lines []string) {
	if len(lines) > 0 {
		fmt.Fprintf(r.w, "\n%s\n  %s\n", title, strings.Join(lines, "\n  "))
	}
}

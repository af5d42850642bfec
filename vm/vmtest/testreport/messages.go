package main

import (
	"regexp"
	"slices"
	"strings"
)

// The summary has this many messages of a top-level test, each up to this many bytes.
const (
	maxMessages = 20
	maxMessage  = 300
)

var (
	// switchLine says which test the lines after it belong to.
	switchLine = regexp.MustCompile(`^=== (?:RUN|NAME|CONT|PAUSE) +(\S+)`)
	failLine   = regexp.MustCompile(`^--- FAIL: (\S+)`)
	logLine    = regexp.MustCompile(`^\S+\.go:\d+: `)
	slogLine   = regexp.MustCompile(`: (?:time=|\{"time":)`) // of a daemon's log
	crashLine  = regexp.MustCompile(`^(?:panic|fatal error|goleak): |^WARNING: DATA RACE`)
)

// messages returns, of the verbose output of a top-level test that failed, the first line
// of each message of the tests in it that failed, those of the innermost first. The output
// of a test that ran again in namespaces of its own is indented. Messages of t.Error and
// t.Log look alike, so both are there, except the logs of daemons.
func messages(output string) []string {
	var crashes, failed []string
	logged := make(map[string][]string) // by test
	test := ""
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if m := switchLine.FindStringSubmatch(line); m != nil {
			test = m[1]
		} else if m := failLine.FindStringSubmatch(line); m != nil {
			failed = append(failed, m[1])
		} else if logLine.MatchString(line) && !slogLine.MatchString(line) {
			logged[test] = append(logged[test], line)
		} else if crashLine.MatchString(line) {
			crashes = append(crashes, line)
		}
	}
	depth := func(test string) int { return strings.Count(test, "/") }
	slices.SortStableFunc(failed, func(a, b string) int { return depth(b) - depth(a) })
	all := crashes
	for _, test := range failed {
		all = append(all, test)
		for _, line := range logged[test] {
			all = append(all, "    "+line)
		}
		delete(logged, test) // the new run of a test has its name
	}
	all = all[:min(maxMessages, len(all))]
	for i, line := range all {
		if len(line) > maxMessage {
			all[i] = strings.ToValidUTF8(line[:maxMessage], "") + "..."
		}
	}
	return all
}

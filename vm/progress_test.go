package vm

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"osx-builder/image"
)

// The log shows how far an image is, every few seconds and no more often.
func TestProgressIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		j := &job{publish: func(Phase, *Progress) {}, phaseEnded: func(Phase, time.Duration) {}}
		report := reportImage(j, slog.New(slog.NewTextHandler(&log, nil)).With("vm", "some-id"))
		for n := range int64(50) { // a quarter of a second each
			report(image.Progress{Stage: image.Downloading, Bytes: n << 26, Total: 4 << 30})
			time.Sleep(250 * time.Millisecond)
		}
		time.Sleep(logEvery)
		report(image.Progress{Stage: image.Unpacking, Bytes: 1 << 20, Total: -1})
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		want := []string{
			`msg=downloading vm=some-id done="1.3 GiB of 4.0 GiB (31%)"`, // after 5 s
			`msg=downloading vm=some-id done="2.5 GiB of 4.0 GiB (62%)"`,
			`msg=unpacking vm=some-id done="1.0 MiB of an unknown size"`,
		}
		if len(lines) != len(want) {
			t.Fatalf("got %d lines, want %d:\n%s", len(lines), len(want), log.String())
		}
		for i := range want {
			if !strings.HasSuffix(lines[i], want[i]) {
				t.Errorf("got %s, want it to end in %s", lines[i], want[i])
			}
		}
		if phase, p := j.current(); phase != Unpacking || p.Bytes != 1<<20 || p.Total != nil {
			t.Errorf("GET shows %s, %+v, want the last report", phase, p)
		}
	})
}

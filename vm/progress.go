package vm

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"osx-builder/image"
)

// logEvery is how often the log is told of an image's progress. One that is
// there sooner gets no line.
const logEvery = 5 * time.Second

// reporter returns what takes the image cache's word on behalf of a machine's
// job: each for who asks with GET, one now and then for who reads the log.
func (m *Manager) reporter(id string, j *job) func(image.Progress) {
	last := time.Now()
	return func(p image.Progress) {
		j.report(p)
		if time.Since(last) < logEvery {
			return
		}
		last = time.Now()
		m.Log.Info(string(p.Stage), "vm", id, "done", done(p))
	}
}

// done says how far an image is, for people.
func done(p image.Progress) string {
	bytes := humanize.IBytes(uint64(max(0, p.Bytes)))
	if p.Total <= 0 {
		return bytes + " of an unknown size"
	}
	return fmt.Sprintf("%s of %s (%d%%)", bytes, humanize.IBytes(uint64(p.Total)), int(100*float64(p.Bytes)/float64(p.Total)))
}

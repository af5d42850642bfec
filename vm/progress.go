package vm

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/dustin/go-humanize"

	"osx-builder/image"
)

// logEvery is the time between two log lines about an image's progress. An image
// that is there sooner gets none.
const logEvery = 5 * time.Second

// reportImage returns a function that passes the image cache's progress on to a
// job and, now and then, to the log.
func reportImage(j *job, log *slog.Logger) func(image.Progress) {
	last := time.Now()
	return func(p image.Progress) {
		j.setImageProgress(p)
		if time.Since(last) < logEvery {
			return
		}
		last = time.Now()
		log.Info(string(p.Stage), "done", progressText(p))
	}
}

// progressText formats an image's progress for people.
func progressText(p image.Progress) string {
	bytes := humanize.IBytes(uint64(max(0, p.Bytes)))
	if p.Total <= 0 {
		return bytes + " of an unknown size"
	}
	return fmt.Sprintf("%s of %s (%d%%)", bytes, humanize.IBytes(uint64(p.Total)), int(100*float64(p.Bytes)/float64(p.Total)))
}

package client

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
)

// logInterval is how often the number of bytes is written if the output is not a terminal.
const logInterval = 10 * time.Second

// progress shows the progress of an operation: with a bar on a terminal, and with one line per stage otherwise.
type progress struct {
	out      io.Writer // nil shows nothing
	terminal bool

	stage      string
	startedAt  time.Time // of the stage
	loggedAt   time.Time // of the last line about bytes
	lastNotice string

	bar   *progressbar.ProgressBar
	total int64 // of the bar; -1 if it is not known
}

// update shows a machine's phase and the bytes of its image.
func (p *progress) update(m machine) {
	p.lastNotice = ""
	switch m.Phase {
	case "ready":
		p.setStage(strings.TrimSuffix("ready, "+m.Status, ", "), false)
		return
	case "failed":
		p.setStage(m.Phase, false)
		return
	}
	p.setStage(m.Phase, true)
	if m.Progress == nil {
		p.spin()
		return
	}
	total := int64(-1)
	if m.Progress.Total != nil {
		total = *m.Progress.Total
	}
	p.setBytes(m.Progress.Bytes, total)
}

// setStage starts a stage and ends the previous one. An active stage is followed by calls of spin or setBytes.
func (p *progress) setStage(stage string, active bool) {
	if p.out == nil || stage == p.stage {
		return
	}
	p.end()
	p.stage, p.startedAt, p.loggedAt = stage, time.Now(), time.Now()
	if !p.terminal || !active {
		fmt.Fprintln(p.out, "osx-builder:", stage)
	}
}

// spin shows that a stage of unknown length is active.
func (p *progress) spin() {
	if p.out == nil || !p.terminal {
		return
	}
	if p.bar == nil {
		p.bar, p.total = p.newBar(-1), -1
	}
	_ = p.bar.Add(1) // a closed terminal is not an error
}

// setBytes shows how many bytes of the stage are done. The total is -1 if it is not known.
func (p *progress) setBytes(n, total int64) {
	switch {
	case p.out == nil:
	case p.terminal:
		if p.bar == nil || p.total != total {
			p.clearBar()
			p.bar, p.total = p.newBar(total), total
		}
		_ = p.bar.Set64(n) // as in spin
	case time.Since(p.loggedAt) >= logInterval:
		p.loggedAt = time.Now()
		fmt.Fprintf(p.out, "osx-builder: %s: %s\n", p.stage, bytesText(n, total))
	}
}

func bytesText(n, total int64) string {
	if total <= 0 {
		return humanize.IBytes(uint64(n))
	}
	return fmt.Sprintf("%s of %s (%d %%)", humanize.IBytes(uint64(n)), humanize.IBytes(uint64(total)), 100*n/total)
}

// notice shows a message, and does not repeat it until the machine is updated.
func (p *progress) notice(text string) {
	if p.out == nil || p.lastNotice == text {
		return
	}
	p.clearBar()
	p.lastNotice = text
	fmt.Fprintln(p.out, "osx-builder:", text)
}

// end ends the stage. On a terminal, a line with its duration remains.
func (p *progress) end() {
	if p.bar != nil {
		p.clearBar()
		fmt.Fprintf(p.out, "osx-builder: %s (%v)\n", p.stage, time.Since(p.startedAt).Round(100*time.Millisecond))
	}
}

// clearBar removes the bar from the terminal.
func (p *progress) clearBar() {
	if p.bar != nil {
		_ = p.bar.Clear() // as in spin
		p.bar = nil
	}
}

// newBar returns a bar for a number of bytes, or a spinner for -1.
func (p *progress) newBar(total int64) *progressbar.ProgressBar {
	options := []progressbar.Option{
		progressbar.OptionSetWriter(p.out), progressbar.OptionSetDescription(p.stage), progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(65 * time.Millisecond), progressbar.OptionSetRenderBlankState(true),
		progressbar.OptionSetElapsedTime(total < 0), progressbar.OptionUseANSICodes(true), progressbar.OptionSetSpinnerChangeInterval(0), progressbar.OptionSpinnerType(14),
	}
	if total >= 0 {
		options = append(options, progressbar.OptionShowCount(), progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true), progressbar.OptionShowTotalBytes(true))
	}
	return progressbar.NewOptions64(total, options...)
}

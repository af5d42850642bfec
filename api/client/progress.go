package client

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
)

// quietTime is how often a log is told of the bytes that have come.
const quietTime = 10 * time.Second

// progress tells people how something goes: as a bar where they look on, as
// plain lines where they read it later.
type progress struct {
	out      io.Writer // nil where nothing is to be told
	terminal bool

	stage string // what is going on
	began time.Time
	told  time.Time // when the log was last told of bytes
	bar   *progressbar.ProgressBar
	total int64 // of the bar; -1 where nobody knows
	noted string
}

func (c *cli) newProgress() *progress {
	if c.quiet {
		return &progress{}
	}
	return &progress{out: c.Stderr, terminal: isTerminal(c.Stderr)}
}

// show tells of a machine's phase and its bytes.
func (p *progress) show(m machine) {
	p.noted = ""
	switch m.Phase {
	case "ready":
		p.enter(strings.TrimSuffix("ready, "+m.Status, ", "), false)
		return
	case "failed":
		p.enter(m.Phase, false)
		return
	}
	p.enter(m.Phase, true)
	if m.Progress == nil {
		p.turn()
		return
	}
	total := int64(-1)
	if m.Progress.Total != nil {
		total = *m.Progress.Total
	}
	p.bytes(m.Progress.Bytes, total)
}

// enter begins a stage, and ends the one before. One that is live will be
// told of again and again.
func (p *progress) enter(stage string, live bool) {
	if p.out == nil || stage == p.stage {
		return
	}
	p.end()
	p.stage, p.began, p.told = stage, time.Now(), time.Now()
	if !p.terminal || !live {
		fmt.Fprintln(p.out, "osx-builder:", stage)
	}
}

// turn shows that a stage goes on whose length nobody knows.
func (p *progress) turn() {
	if p.out == nil || !p.terminal {
		return
	}
	if p.bar == nil {
		p.bar, p.total = p.newBar(-1), -1
	}
	_ = p.bar.Add(1) // a terminal that is gone is no failure
}

// bytes tells how far the stage is; total is -1 where nobody knows.
func (p *progress) bytes(n, total int64) {
	switch {
	case p.out == nil:
	case p.terminal:
		if p.bar == nil || p.total != total {
			p.clear()
			p.bar, p.total = p.newBar(total), total
		}
		_ = p.bar.Set64(n) // as in turn
	case time.Since(p.told) >= quietTime:
		p.told = time.Now()
		fmt.Fprintf(p.out, "osx-builder: %s: %s\n", p.stage, amountText(n, total))
	}
}

func amountText(n, total int64) string {
	if total <= 0 {
		return humanize.IBytes(uint64(n))
	}
	return fmt.Sprintf("%s of %s (%d %%)", humanize.IBytes(uint64(n)), humanize.IBytes(uint64(total)), 100*n/total)
}

// note tells of something that goes on, once until something else is shown.
func (p *progress) note(text string) {
	if p.out == nil || p.noted == text {
		return
	}
	p.clear()
	p.noted = text
	fmt.Fprintln(p.out, "osx-builder:", text)
}

// end ends the last stage. A terminal keeps a line of each that took a while.
func (p *progress) end() {
	if p.bar != nil {
		p.clear()
		fmt.Fprintf(p.out, "osx-builder: %s (%v)\n", p.stage, time.Since(p.began).Round(100*time.Millisecond))
	}
}

// clear takes the bar off the terminal.
func (p *progress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear() // as in turn
		p.bar = nil
	}
}

// newBar is a bar for as many bytes, or a spinner for -1.
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

package client

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

const (
	// logInterval is how often the number of bytes is written if the output is not a terminal.
	logInterval = 10 * time.Second

	// drawInterval is how often the line on a terminal is drawn again.
	drawInterval = 100 * time.Millisecond

	// shownStage is the shortest stage that leaves a line on a terminal.
	shownStage = time.Second

	// widestBar is the width of the bar, in columns, if there is room for it.
	widestBar = 30
)

// progress shows the progress of an operation: on a terminal with one line that is drawn again and again, and otherwise
// with a line for each stage.
type progress struct {
	out   io.Writer            // nil shows nothing
	width func() int           // of the terminal; 0 if out is none
	infof func(string, ...any) // writes a line that stays

	stage, file string
	startedAt   time.Time // of the stage
	loggedAt    time.Time // of the last line about bytes
	lastNotice  string

	first    int64 // bytes at the start of the stage
	counting bool  // the stage counts bytes
	drawn    bool  // the line is on the terminal
	drawnAt  time.Time
}

// newProgress returns a progress display on stderr.
func (o *output) newProgress() *progress {
	if o.quiet {
		return &progress{}
	}
	return &progress{out: o.stderr, width: func() int { return terminalWidth(o.stderr) }, infof: o.infof}
}

// update shows a machine's phase and the bytes of its image.
func (p *progress) update(m machine) {
	p.lastNotice = ""
	switch m.Phase {
	case "ready":
		p.setStage(strings.TrimSuffix("ready, "+m.Status, ", "), "", false)
		return
	case "failed":
		p.setStage(m.Phase, "", false)
		return
	}
	file := ""
	if m.Phase == "downloading" || m.Phase == "unpacking" {
		file = m.file()
	}
	p.setStage(m.Phase, file, true)
	if m.Progress == nil {
		p.draw(nil)
		return
	}
	total := int64(-1)
	if m.Progress.Total != nil {
		total = *m.Progress.Total
	}
	p.setBytes(m.Progress.Bytes, total)
}

// setStage starts a stage and ends the previous one. An active stage is followed by calls of draw or setBytes.
func (p *progress) setStage(stage, file string, active bool) {
	if p.out == nil || stage == p.stage && file == p.file {
		return
	}
	p.end()
	p.stage, p.file, p.startedAt, p.loggedAt, p.counting = stage, file, time.Now(), time.Now(), false
	switch {
	case p.width() == 0:
		p.infof("%s", p.title())
	case active:
		p.draw(nil)
	}
}

// title returns the stage with the file that it is about.
func (p *progress) title() string { return strings.TrimSpace(p.stage + " " + p.file) }

// setBytes shows how many bytes of the stage are done. The total is -1 if it is not known.
func (p *progress) setBytes(n, total int64) {
	if p.out == nil {
		return
	}
	if !p.counting {
		p.counting, p.first = true, n
	}
	if p.width() > 0 {
		p.draw(&byteProgress{Bytes: n, Total: &total})
		return
	}
	if time.Since(p.loggedAt) >= logInterval {
		p.loggedAt = time.Now()
		p.infof("%s: %s", p.title(), strings.Join(p.numbers(n, total), ", "))
	}
}

// draw draws the line on the terminal. Without bytes it shows how long the stage takes.
func (p *progress) draw(b *byteProgress) {
	if p.out == nil || p.width() == 0 || p.drawn && time.Since(p.drawnAt) < drawInterval {
		return
	}
	line := ""
	if b == nil {
		line = layout(p.title(), -1, []string{p.elapsed()}, p.width()-1)
	} else {
		fraction := -1.0
		if *b.Total > 0 {
			fraction = min(1, float64(b.Bytes)/float64(*b.Total))
		}
		line = layout(p.title(), fraction, p.numbers(b.Bytes, *b.Total), p.width()-1)
	}
	fmt.Fprint(p.out, "\r"+line+"\x1b[K")
	p.drawn, p.drawnAt = true, time.Now()
}

// elapsed returns how long the stage takes, from the first second on.
func (p *progress) elapsed() string {
	if d := time.Since(p.startedAt); d >= time.Second {
		return durationText(d.Round(time.Second))
	}
	return ""
}

// numbers returns the percentage, the bytes, the speed and the time that is left, as far as they are known. The most
// important ones come first.
func (p *progress) numbers(n, total int64) []string {
	rate := float64(n-p.first) / max(time.Since(p.startedAt).Seconds(), 0.1)
	speed := humanize.IBytes(uint64(max(rate, 0))) + "/s"
	if total <= 0 {
		return []string{humanize.IBytes(uint64(n)), speed}
	}
	parts := []string{fmt.Sprintf("%d %%", 100*n/total)}
	if rate > 0 {
		left := time.Duration(float64(total-n) / rate * float64(time.Second))
		parts = append(parts, durationText(max(left, time.Second).Round(time.Second))+" left")
	}
	return append(parts, humanize.IBytes(uint64(n))+" of "+humanize.IBytes(uint64(total)), speed)
}

// layout fits a title, a bar and numbers into one line. It drops the last numbers first, then the bar, and then shortens
// the title. A negative fraction has no bar.
func layout(title string, fraction float64, numbers []string, width int) string {
	const gap = "  "
	const shortestTitle, narrowestBar = 20, 10
	for len(numbers) > 1 && columns(strings.Join(numbers, gap))+min(columns(title), shortestTitle)+2*len(gap)+narrowestBar > width {
		numbers = numbers[:len(numbers)-1]
	}
	right := strings.Join(numbers, gap)
	room := width - columns(right) - len(gap)
	bar := min(widestBar, room-len(gap)-min(columns(title), shortestTitle))
	if fraction < 0 || bar < narrowestBar {
		return shorten(shorten(title, max(room, 1))+gap+right, width)
	}
	title = shorten(title, room-len(gap)-bar)
	done := int(fraction * float64(bar-2))
	return title + gap + "[" + strings.Repeat("#", done) + strings.Repeat("-", bar-2-done) + "]" + gap + right
}

// notice shows a message, and does not repeat it until the machine is updated.
func (p *progress) notice(text string) {
	if p.out == nil || p.lastNotice == text {
		return
	}
	p.clear()
	p.lastNotice = text
	p.infof("%s", text)
}

// end ends the stage. On a terminal, a line about it remains if it took long.
func (p *progress) end() {
	if p.out == nil || !p.drawn {
		return
	}
	p.clear()
	if took := time.Since(p.startedAt); took >= shownStage {
		p.infof("%s took %s", p.title(), durationText(took))
	}
}

// clear removes the line from the terminal.
func (p *progress) clear() {
	if p.drawn {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.drawn = false
	}
}

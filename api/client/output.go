package client

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/rivo/uniseg"
	"golang.org/x/term"
)

// output writes results to stdout, and messages to stderr.
type output struct {
	stdout, stderr io.Writer
	quiet          bool     // no messages
	json           bool     // no results for people
	field          []string // the path of the field to print; empty for the whole document
	colors         bool     // the user allows colours on terminals
}

func newOutput(stdout, stderr io.Writer, getenv func(string) string) output {
	return output{stdout: stdout, stderr: stderr, colors: getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"}
}

// forPeople reports whether results are printed for people. Otherwise they are the daemon's documents.
func (o *output) forPeople() bool { return isTerminal(o.stdout) && !o.json && len(o.field) == 0 }

// infof writes a message to stderr.
func (o *output) infof(format string, args ...any) {
	if !o.quiet {
		o.errorf(format, args...)
	}
}

// errorf writes a message to stderr, even with --quiet. On a terminal it breaks the line between words.
func (o *output) errorf(format string, args ...any) {
	text := "osx-builder: " + fmt.Sprintf(format, args...)
	fmt.Fprintln(o.stderr, strings.Join(wrap(text, terminalWidth(o.stderr), "  "), "\n"))
}

// wrap breaks text into lines of fewer than width columns, between words if possible. The lines after the first begin
// with indent. A width of 0 does not break the text.
func wrap(text string, width int, indent string) []string {
	if width <= len(indent)+1 {
		return []string{text}
	}
	var lines []string
	line := ""
	for i, word := range strings.Split(text, " ") {
		joined := line + " " + word
		if i == 0 {
			joined = word
		}
		if columns(joined) < width || strings.TrimSpace(line) == "" {
			line = joined
			continue
		}
		lines = append(lines, line)
		line = indent + word
	}
	return append(lines, line)
}

// isTerminal reports whether w is a terminal.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// The size of a terminal that does not know its own.
const (
	defaultWidth  = 80
	defaultHeight = 24
)

// terminalWidth returns the width of the terminal in columns, or 0 if w is not a terminal.
func terminalWidth(w io.Writer) int {
	width, _ := terminalSize(w)
	return width
}

func terminalSize(w io.Writer) (width, height int) {
	if !isTerminal(w) {
		return 0, 0
	}
	width, height, err := term.GetSize(int(w.(*os.File).Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return defaultWidth, defaultHeight
	}
	return width, height
}

// columns returns the number of columns that text takes on a terminal.
func columns(text string) int { return uniseg.StringWidth(text) }

// shorten cuts text to a number of columns, and marks that with an ellipsis.
func shorten(text string, width int) string {
	if columns(text) <= width {
		return text
	}
	short, state := "", -1
	for rest := text; rest != ""; {
		var cluster string
		cluster, rest, _, state = uniseg.FirstGraphemeClusterInString(rest, state)
		if columns(short+cluster) >= width {
			break
		}
		short += cluster
	}
	return short + "…"
}

// The escape sequences of colours.
const (
	red, green, yellow, grey = "31", "32", "33", "90"
)

// paint colours text if w is a terminal and the user allows it.
func (o *output) paint(w io.Writer, color, text string) string {
	if color == "" || !o.colors || !isTerminal(w) {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

package client

import (
	"fmt"
	"io"
	"strings"
)

// column is a column of a table.
type column struct {
	title    string
	value    func(row int) string
	color    func(row int) string // nil for none
	optional bool                 // left out if the table does not fit; the last optional columns first
	shrink   bool                 // shortened if the table does not fit without the optional columns
}

// columnGap is the number of columns between two columns of a table.
const columnGap = 2

// table is a table for people.
type table struct {
	columns []column
	rows    int
}

// lines returns the table's lines for a terminal of that width, or for a file if width is 0. paint colours a cell.
func (t table) lines(width int, paint func(color, text string) string) []string {
	cells := t.cells()
	widths := make([]int, len(t.columns))
	for i, column := range cells {
		for _, cell := range column {
			widths[i] = max(widths[i], columns(cell))
		}
	}
	shown := t.fit(widths, width)
	lines := make([]string, 0, t.rows+1)
	for row := range t.rows + 1 {
		lines = append(lines, t.line(row, shown, widths, cells, paint))
	}
	return lines
}

// cells returns the texts of each column, beginning with its title.
func (t table) cells() [][]string {
	cells := make([][]string, len(t.columns))
	for i, c := range t.columns {
		cells[i] = append(cells[i], c.title)
		for row := range t.rows {
			cells[i] = append(cells[i], c.value(row))
		}
	}
	return cells
}

// fit chooses the columns that fit, and narrows the one that may be shortened.
func (t table) fit(widths []int, width int) (shown []bool) {
	shown = make([]bool, len(t.columns))
	total := -columnGap
	for i := range t.columns {
		shown[i] = true
		total += widths[i] + columnGap
	}
	if width == 0 {
		return shown
	}
	for i := len(t.columns) - 1; i >= 0 && total >= width; i-- {
		if t.columns[i].optional {
			shown[i] = false
			total -= widths[i] + columnGap
		}
	}
	for i, c := range t.columns {
		if c.shrink && total >= width {
			narrower := max(columns(c.title), widths[i]-(total-width+1))
			total -= widths[i] - narrower
			widths[i] = narrower
		}
	}
	return shown
}

// line returns a row; row 0 is the titles.
func (t table) line(row int, shown []bool, widths []int, cells [][]string, paint func(color, text string) string) string {
	var b strings.Builder
	padding := 0
	for i, c := range t.columns {
		if !shown[i] {
			continue
		}
		text := shorten(cells[i][row], widths[i])
		b.WriteString(strings.Repeat(" ", padding))
		padding = widths[i] - columns(text) + columnGap
		if c.color != nil && row > 0 {
			text = paint(c.color(row-1), text)
		}
		b.WriteString(text)
	}
	return b.String()
}

// printTable writes a table to stdout. Unless it is wide, it fits the terminal.
func (o *output) printTable(t table, wide bool) error {
	width := terminalWidth(o.stdout)
	if wide {
		width = 0
	}
	lines := t.lines(width, o.paintStdout)
	_, err := io.WriteString(o.stdout, strings.Join(lines, "\n")+"\n")
	return err
}

func (o *output) paintStdout(color, text string) string { return o.paint(o.stdout, color, text) }

// countText returns a number for a table, and nothing for 0.
func countText(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

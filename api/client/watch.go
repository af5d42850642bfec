package client

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// The escape sequences of the alternate screen, in which the table is drawn again and again.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	homeCursor  = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// redrawInterval is the shortest time between two drawings, and ageInterval the longest: ages change without an event.
const (
	redrawInterval = 200 * time.Millisecond
	ageInterval    = 10 * time.Second
)

// watch shows the table of machines until the user interrupts it.
func watch(ctx context.Context, c *cli, daemon *apiClient, o listOptions) error {
	if !isTerminal(c.stdout) || c.json || c.quiet {
		return usageError("--watch shows a table on a terminal; osx-builder events prints changes to a pipe or a file")
	}
	_, list, err := o.read(ctx, daemon)
	if err != nil {
		return err
	}
	changed := make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- daemon.follow(ctx, "", func(event) {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	fmt.Fprint(c.stdout, enterScreen)
	defer fmt.Fprint(c.stdout, leaveScreen)
	for {
		o.draw(c, list)
		select {
		case <-changed:
		case <-time.After(ageInterval):
		case err := <-ended:
			return err
		}
		select {
		case <-time.After(redrawInterval):
		case err := <-ended:
			return err
		}
		if _, now, err := o.read(ctx, daemon); err == nil {
			list = now // after an error the stream of events ends too, if the daemon does not return
		}
	}
}

// draw draws the table, as much of it as fits on the screen.
func (o *listOptions) draw(c *cli, list []machine) {
	width, height := terminalSize(c.stdout)
	lines := []string{o.none()}
	if len(list) > 0 {
		lines = o.table(list, false).lines(width, c.paintStdout)
	}
	if most := max(height-1, 2); len(lines) > most {
		hidden := len(lines) - most + 1
		lines = append(lines[:most-1], fmt.Sprintf("... and %s", plural(hidden, "more machine")))
	}
	fmt.Fprint(c.stdout, homeCursor+strings.Join(lines, clearLine+"\r\n")+clearLine+"\r\n"+clearBelow)
}

package client

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// printMachine prints a machine: for people one line, and otherwise its document, or the field that --field names.
// took is how long the command worked, or 0.
func (o *output) printMachine(m machine, took time.Duration) error {
	if !o.forPeople() || len(m.document) == 0 {
		return o.printDocument(m.document)
	}
	state := m.state()
	parts := []string{o.paint(o.stdout, stateColor(state), state), o.label(m)}
	if m.IP != "" {
		parts = append(parts, m.address())
	}
	if took > 0 {
		parts = append(parts, "in "+durationText(took))
	}
	if _, err := fmt.Fprintln(o.stdout, strings.Join(parts, "  ")); err != nil {
		return err
	}
	o.printWarnings(m)
	return nil
}

// printWarnings prints a machine's warnings to stderr.
func (o *output) printWarnings(m machine) {
	for _, w := range m.Warnings {
		o.infof("warning: %s (%s)", w.Message, w.Code)
	}
}

// printDetails prints a machine: for people one line for each fact, and otherwise like printMachine.
func (o *output) printDetails(m machine) error {
	if !o.forPeople() {
		return o.printDocument(m.document)
	}
	state := m.state()
	facts := [][2]string{
		{"name", m.Name},
		{"owner", m.Owner},
		{"id", m.ID},
		{"state", o.paint(o.stdout, stateColor(state), state)},
		{"stopped because", m.StoppedBecause},
		{"address", m.address()},
		{"network", m.Network},
		{"image", m.Image.URL},
		{"hardware", plural(m.CPUs, "CPU") + ", " + m.Memory},
		{"guest", m.GuestOS},
		{"created", ageText(m.CreatedAt)},
	}
	if m.ExpiresAt != nil {
		facts = append(facts, [2]string{"expires", expiryText(*m.ExpiresAt)})
	}
	if m.Error != nil {
		facts = append(facts, [2]string{"error", m.Error.Error()})
	}
	for _, w := range m.Warnings {
		facts = append(facts, [2]string{"warning", w.Error()})
	}
	return o.printFacts(facts)
}

// expiryText returns the end of a lifetime for people.
func expiryText(at time.Time) string {
	return fmt.Sprintf("%s (%s)", humanize.Time(at), at.Local().Format("2006-01-02 15:04"))
}

// printFacts prints names and values in two columns. It leaves out facts without a value, and breaks long values
// between words.
func (o *output) printFacts(facts [][2]string) error {
	widest := 0
	for _, f := range facts {
		widest = max(widest, columns(f[0]))
	}
	for _, f := range facts {
		if f[1] == "" {
			continue
		}
		name := f[0] + strings.Repeat(" ", widest-columns(f[0])) + "  "
		indent := strings.Repeat(" ", widest+2)
		lines := wrap(name+f[1], terminalWidth(o.stdout), indent)
		if _, err := fmt.Fprintln(o.stdout, strings.Join(lines, "\n")); err != nil {
			return err
		}
	}
	return nil
}

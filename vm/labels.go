package vm

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The bounds of labels.
const (
	maxLabels     = 32
	maxLabelValue = 256 // bytes
)

// labelName matches the name of a label.
var labelName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$`)

// Labels are names and values that a client gives to a machine, to find it again. A name has 1 to 63 letters, digits and
// ". _ / -"; a value has up to 256 bytes of printable text.
type Labels map[string]string

// parseLabels checks the labels of a request. It returns nil if there are none.
func parseLabels(l Labels, p *problems) Labels {
	if len(l) == 0 {
		return nil
	}
	if len(l) > maxLabels {
		p.add(fieldError("labels", fmt.Sprintf("%d labels", len(l)), fmt.Sprintf("at most %d", maxLabels)))
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(l)) {
		value := l[name]
		switch {
		case !labelName.MatchString(name):
			p.add(fieldError("labels", fmt.Sprintf("named %q", name),
				`named with 1 to 63 letters, digits and ". _ / -", and begin and end with a letter or digit`))
		case len(value) > maxLabelValue || !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }):
			p.add(fieldError("labels."+name, fmt.Sprintf("%q", value), fmt.Sprintf("printable text of at most %d bytes", maxLabelValue)))
		}
	}
	return l
}

// ParseLabel reads a label to search for: "name=value", or "name" for any value. Its errors are *[Error].
func ParseLabel(text string) (Label, error) {
	name, value, exact := strings.Cut(text, "=")
	if !labelName.MatchString(name) {
		return Label{}, fieldError("label", fmt.Sprintf("%q", text), "the name of a label, or a name and a value as in job=1234")
	}
	return Label{name, value, !exact}, nil
}

// Label is a label to search for.
type Label struct {
	Name, Value string
	AnyValue    bool // the label must exist; Value does not matter
}

// have reports whether all of the wanted labels are among l.
func (l Labels) have(wanted []Label) bool {
	for _, w := range wanted {
		if value, ok := l[w.Name]; !ok || !w.AnyValue && value != w.Value {
			return false
		}
	}
	return true
}

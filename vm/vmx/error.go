package vmx

import (
	"fmt"
	"strings"
)

// CheckError says why an image must not or cannot be opened. Its text is
// complete for the client who sent the image.
type CheckError struct {
	File   string // path inside the image of the file at fault, or ""
	Key    string // the key or field at fault, or "" if it is the file as a whole
	Value  string // what Key says
	Reason string // what is wrong, and what would be right

	// Hostile is set where opening the image could reach beyond its own
	// files, or where hypervisors would disagree on which files it names. An
	// image that is merely broken is not hostile.
	Hostile bool
}

func (e *CheckError) Error() string {
	var b strings.Builder
	if e.File != "" {
		fmt.Fprintf(&b, "%s: ", printable(e.File))
	}
	if e.Key != "" {
		fmt.Fprintf(&b, "%s = %q: ", printable(e.Key), shorten(e.Value))
	}
	b.WriteString(e.Reason)
	return b.String()
}

// Unsafe tells a hostile image from a broken one.
func (e *CheckError) Unsafe() bool { return e.Hostile }

// shorten keeps a value from a stranger's file to a length fit for a message.
func shorten(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// printable is s as it is if it is plain text, and quoted if not.
func printable(s string) string {
	s = shorten(s)
	if q := fmt.Sprintf("%q", s); q != `"`+s+`"` {
		return q
	}
	return s
}

package vmx

import (
	"fmt"
	"strings"
)

// CheckError says why an image must not or cannot be opened. Its text is meant for the client that sent the image.
type CheckError struct {
	File   string // path of the wrong file inside the image, or ""
	Key    string // the wrong key or field, or "" for the whole file
	Value  string // the value of Key
	Reason string // what is wrong, and how to correct it

	// Hostile is true if opening the image could access other files than its own, or if hypervisors would find
	// different files in it. A damaged image is not hostile.
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

// Unsafe reports whether the image is hostile.
func (e *CheckError) Unsafe() bool { return e.Hostile }

// shorten shortens a value from an image for a message.
func shorten(s string) string {
	const limit = 200
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}

// printable returns s, in quotes if it is not plain text.
func printable(s string) string {
	s = shorten(s)
	if q := fmt.Sprintf("%q", s); q != `"`+s+`"` {
		return q
	}
	return s
}

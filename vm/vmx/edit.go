package vmx

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var validKey = regexp.MustCompile(`^[A-Za-z0-9_.:-]+$`)

// Set sets key to value. It rewrites the last line with the key and removes the others; a new key is added at the end.
//
// A value cannot set other keys: quotes, control characters, '|' and '=' are escaped. It is an error if key has other
// characters than A-Z a-z 0-9 _ . : -, if value contains a NUL byte, or if the file would exceed the limits of [Parse].
// After an error the file is unchanged.
func (f *File) Set(key, value string) error {
	if !validKey.MatchString(key) {
		return fmt.Errorf("setting the .vmx key %q: a key may contain only letters, digits and _ . : -", shorten(key))
	}
	if strings.IndexByte(value, 0) >= 0 {
		return fmt.Errorf("setting the .vmx key %s: the value %q contains a NUL byte", key, shorten(value))
	}
	text := key + ` = "` + escape(value) + `"`
	if f.size()+len(text)+4 > maxFile || len(f.lines) >= maxLines {
		return fmt.Errorf("setting the .vmx key %s: the file would be longer than %d bytes or %d lines", key, maxFile, maxLines)
	}

	id := lower(key)
	last, ok := f.last[id]
	if !ok {
		f.add(text)
		return nil
	}
	f.lines[last] = parseLine(text + f.lines[last].terminator())
	n := -1
	f.lines = slices.DeleteFunc(f.lines, func(l line) bool {
		n++
		return l.key == id && n != last
	})
	f.index()
	return nil
}

// add appends a line with a new key.
func (f *File) add(text string) {
	if n := len(f.lines); n > 0 && f.lines[n-1].terminator() == "" {
		f.lines[n-1].raw += f.eol
	}
	l := parseLine(text + f.eol)
	f.lines = append(f.lines, l)
	f.last[l.key] = len(f.lines) - 1
}

// Delete removes every line with key.
func (f *File) Delete(key string) {
	id := lower(key)
	f.DeleteFunc(func(k string) bool { return k == id })
}

// DeleteFunc removes every line for whose key del returns true. The keys are in lower case.
func (f *File) DeleteFunc(del func(key string) bool) {
	f.lines = slices.DeleteFunc(f.lines, func(l line) bool { return l.key != "" && del(l.key) })
	f.index()
}

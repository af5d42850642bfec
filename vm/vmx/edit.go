package vmx

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var validKey = regexp.MustCompile(`^[A-Za-z0-9_.:-]+$`)

// Set makes key say value. The last line that sets key is rewritten where it
// stands and others of the same key go; a new key is added at the end.
//
// Whatever value holds, no other key is set by it: quotes, control characters,
// '|' and '=' are escaped. A key of other characters than A-Z a-z 0-9 _ . : -
// is an error, as are a value with a NUL byte in it and one that makes the file
// longer than Parse takes. After an error the file is as it was.
func (f *File) Set(key, value string) error {
	if !validKey.MatchString(key) {
		return fmt.Errorf("setting the .vmx key %q: a key is made of letters, digits and _ . : -", shorten(key))
	}
	if strings.IndexByte(value, 0) >= 0 {
		return fmt.Errorf("setting the .vmx key %s: the value %q has a NUL byte in it", key, shorten(value))
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

// add appends a line that sets a new key.
func (f *File) add(text string) {
	if n := len(f.lines); n > 0 && f.lines[n-1].terminator() == "" {
		f.lines[n-1].raw += f.eol
	}
	l := parseLine(text + f.eol)
	f.lines = append(f.lines, l)
	f.last[l.key] = len(f.lines) - 1
}

// Delete removes every line that sets key.
func (f *File) Delete(key string) {
	id := lower(key)
	f.DeleteFunc(func(k string) bool { return k == id })
}

// DeleteFunc removes every line whose key del returns true for. It is given
// keys in lower case.
func (f *File) DeleteFunc(del func(key string) bool) {
	f.lines = slices.DeleteFunc(f.lines, func(l line) bool { return l.key != "" && del(l.key) })
	f.index()
}

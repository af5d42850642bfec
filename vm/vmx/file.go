package vmx

import (
	"bytes"
	"fmt"
	"strings"
)

// The limits of a .vmx file. Real ones have some kilobytes and a few hundred lines.
const (
	maxFile  = 1 << 20 // bytes
	maxLines = 1 << 16
)

const utf8BOM = "\xef\xbb\xbf"

// File is a .vmx file as a list of lines. Only methods that do not change it may be called concurrently.
type File struct {
	bom   string
	lines []line
	last  map[string]int // by key: the index of its last line
	eol   string         // the terminator of new lines
}

// Parse reads a .vmx file. It accepts what VMware accepts: lines that end in "\n", "\r\n" or "\r", or nothing at the
// end of the file; a byte order mark; comments and empty lines; keys in any case; values with and without quotes, with
// |XX escapes. A line of any other form is kept and sets nothing. Text in another encoding than UTF-8 is kept
// unchanged.
//
// A file with more than 1 MiB or 65536 lines, or with a NUL byte, is an error.
func Parse(data []byte) (*File, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("the .vmx file has %d bytes; the limit is %d", len(data), maxFile)
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return nil, fmt.Errorf("the .vmx file has a NUL byte at offset %d; it is not a text file", i)
	}
	rest, f := string(data), &File{eol: "\n"}
	if text, ok := strings.CutPrefix(rest, utf8BOM); ok {
		f.bom, rest = utf8BOM, text
	}
	for rest != "" {
		if len(f.lines) == maxLines {
			return nil, fmt.Errorf("the .vmx file has more than %d lines", maxLines)
		}
		var raw string
		raw, rest = cutLine(rest)
		f.lines = append(f.lines, parseLine(raw))
	}
	if len(f.lines) > 0 && f.lines[0].terminator() == "\r\n" {
		f.eol = "\r\n"
	}
	f.index()
	return f, nil
}

// index updates f.last after lines were added or removed. With it, reading takes time linear in the size of the file.
func (f *File) index() {
	f.last = make(map[string]int, len(f.lines))
	for i, l := range f.lines {
		if l.key != "" {
			f.last[l.key] = i
		}
	}
}

// Bytes returns the file's contents. Lines that no method changed are as Parse read them.
func (f *File) Bytes() []byte {
	b := make([]byte, 0, f.size())
	b = append(b, f.bom...)
	for _, l := range f.lines {
		b = append(b, l.raw...)
	}
	return b
}

func (f *File) size() int {
	n := len(f.bom)
	for _, l := range f.lines {
		n += len(l.raw)
	}
	return n
}

// Get returns the unescaped value of key, in any case. If the key is set more than once, the last value counts. VMware
// refuses such a file, which [File.Set] corrects.
func (f *File) Get(key string) (value string, ok bool) {
	i, ok := f.last[lower(key)]
	if !ok {
		return "", false
	}
	return f.lines[i].value, true
}

// Bool reports whether key has one of VMware's words for true: TRUE, yes, on, t, y or 1, in any case.
func (f *File) Bool(key string) bool {
	value, _ := f.Get(key)
	b, ok := parseBool(value)
	return ok && b
}

func parseBool(value string) (b, ok bool) {
	switch lower(strings.Trim(value, " \t")) {
	case "true", "yes", "on", "t", "y", "1":
		return true, true
	case "false", "no", "off", "f", "n", "0":
		return false, true
	}
	return false, false
}

// Keys returns the keys in lower case and without duplicates, in the order of their first lines.
func (f *File) Keys() []string {
	seen := make(map[string]bool, len(f.lines))
	var keys []string
	for _, l := range f.lines {
		if l.key != "" && !seen[l.key] {
			seen[l.key] = true
			keys = append(keys, l.key)
		}
	}
	return keys
}

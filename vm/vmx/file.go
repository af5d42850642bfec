package vmx

import (
	"bytes"
	"fmt"
	"strings"
)

// Bounds on a .vmx file. Real ones have some kilobytes and a few hundred lines.
const (
	maxFile  = 1 << 20 // bytes
	maxLines = 1 << 16
)

const utf8BOM = "\xef\xbb\xbf"

// File is a .vmx file as its lines. Its methods must not be called at once,
// but for those that only read.
type File struct {
	bom   string
	lines []line
	last  map[string]int // where a key's last line is
	eol   string         // the terminator for new lines
}

// Parse reads a .vmx file. It takes what VMware takes: lines that end in
// "\n", "\r\n" or "\r", the last one perhaps in nothing; a byte order mark;
// comments and empty lines; keys in any case; values quoted or bare, with |XX
// escapes. A line of no known shape is kept and sets nothing. Text in another
// encoding than UTF-8 is kept as its bytes.
//
// A file of more than 1 MiB or 65536 lines, or with a NUL byte in it, is an
// error.
func Parse(data []byte) (*File, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("the .vmx file has %d bytes, and at most %d are read", len(data), maxFile)
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

// index finds the lines anew after some came or went. It keeps reading linear
// in the size of a file, whatever a file is made of.
func (f *File) index() {
	f.last = make(map[string]int, len(f.lines))
	for i, l := range f.lines {
		if l.key != "" {
			f.last[l.key] = i
		}
	}
}

// Bytes returns the file's contents. Lines that no method changed are as Parse
// found them.
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

// Get returns the value of key, unescaped. The case of key's letters does not
// matter. Of a key that is set more than once the last value counts; VMware
// itself refuses such a file, and Set mends it.
func (f *File) Get(key string) (value string, ok bool) {
	i, ok := f.last[lower(key)]
	if !ok {
		return "", false
	}
	return f.lines[i].value, true
}

// Bool reports whether key is set to one of the words by which VMware means
// yes: TRUE, yes, on, t, y or 1, in any case.
func (f *File) Bool(key string) bool {
	value, _ := f.Get(key)
	yes, ok := parseBool(value)
	return ok && yes
}

func parseBool(value string) (yes, ok bool) {
	switch lower(strings.Trim(value, " \t")) {
	case "true", "yes", "on", "t", "y", "1":
		return true, true
	case "false", "no", "off", "f", "n", "0":
		return false, true
	}
	return false, false
}

// Keys returns the keys that the file sets, in lower case, in the order of
// their first lines, each once.
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

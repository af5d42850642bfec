package vmx

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/text/encoding"
)

// Files are the files of an unpacked image that [Resolve] may change.
type Files interface {
	// Root is the image's folder.
	Root() *os.Root
	// Find returns the path of the one file whose path differs at most in letter case or Unicode form.
	Find(name string) (path string, ok bool)
	// Stored returns what a path is called in the image if the archive has it in these bytes of an unknown code page.
	Stored(raw string) string
	// Create and Remove change the files.
	Create(name string, body io.Reader) error
	Remove(name string) error
}

// Resolve rewrites the .vmx file at name, the descriptors of its disks and its list of snapshots so that every reader finds
// the same files: in UTF-8 instead of the code page of the host that wrote them, and with the names that the files have in
// the image. VMware finds a file also if the letter case differs, and on Windows behind a backslash. Resolve changes a name
// only if exactly one file fits, and leaves the judgement to [Check]. It also removes an offset that QEMU cannot read.
//
// An error about the image is a [*CheckError].
func Resolve(files Files, name string) error {
	r := &resolver{files: files, seen: map[string]bool{}}
	f, err := r.rewrite(name, func(f *File) []string {
		h, err := f.Hardware()
		if err != nil {
			return nil // Check says it
		}
		keys := []string{"nvram"}
		for _, d := range h.Disks {
			keys = append(keys, d.Key, strings.TrimSuffix(d.Key, ".fileName")+".redo")
		}
		return keys
	})
	if err != nil {
		return err
	}
	list := strings.TrimSuffix(name, path.Ext(name)) + ".vmsd"
	if found, ok := files.Find(list); ok {
		if _, err := r.rewrite(found, func(f *File) []string {
			return slices.DeleteFunc(f.Keys(), func(key string) bool { return !strings.HasSuffix(key, "filename") })
		}); err != nil {
			return err
		}
	}
	h, err := f.Hardware()
	if err != nil {
		return nil // Check says it
	}
	for _, d := range h.Disks {
		if err := r.disk(path.Join(path.Dir(name), d.File)); err != nil {
			return err
		}
	}
	return nil
}

type resolver struct {
	files Files
	seen  map[string]bool // descriptors
}

// rewrite rewrites a file that has the format of a .vmx and the values of some of its keys.
func (r *resolver) rewrite(name string, keys func(*File) []string) (*File, error) {
	f, err := readConfig(r.files.Root(), name)
	if err != nil {
		return nil, err
	}
	declared, _ := f.Get(".encoding")
	text, from, err := decodeText(f.Bytes(), declared)
	if err != nil {
		return nil, (&checker{}).locate(name, "", "", err)
	}
	if from != nil {
		if f, err = Parse(text); err == nil {
			err = f.Set(".encoding", "UTF-8")
		}
		if err != nil {
			return nil, &CheckError{File: name, Reason: err.Error()}
		}
	}
	for _, key := range keys(f) {
		value, _ := f.Get(key)
		if to := r.find(name, value, from); to != value {
			if err := f.Set(key, to); err != nil {
				return nil, &CheckError{File: name, Reason: err.Error()}
			}
		}
	}
	return f, r.replace(name, f.Bytes())
}

// replace writes a file if its contents changed.
func (r *resolver) replace(name string, data []byte) error {
	was, err := r.files.Root().ReadFile(name)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	if bytes.Equal(was, data) {
		return nil
	}
	if err := r.files.Remove(name); err != nil {
		return err
	}
	return r.files.Create(name, bytes.NewReader(data))
}

// find returns the name that a file has to which the file at by refers as value.
func (r *resolver) find(by, value string, from encoding.Encoding) string {
	slashed := strings.ReplaceAll(value, `\`, "/")
	if value == "" || unsafeName(slashed) != "" {
		return value
	}
	dir := path.Dir(by)
	if found, ok := r.files.Find(path.Join(dir, slashed)); ok {
		if found == path.Join(dir, slashed) {
			return slashed
		}
		return r.relative(dir, found, value)
	}
	matches := map[string]bool{}
	for _, e := range append([]encoding.Encoding{from}, guesses...) {
		if e == nil {
			continue
		}
		if raw, err := e.NewEncoder().String(value); err == nil && raw != value {
			if found, ok := r.files.Find(path.Join(dir, strings.ReplaceAll(r.files.Stored(raw), `\`, "/"))); ok {
				matches[found] = true
			}
		}
	}
	if len(matches) != 1 {
		return value
	}
	for found := range matches {
		return r.relative(dir, found, value)
	}
	return value
}

// relative returns the path of a file below dir, and otherwise the value that led to it.
func (r *resolver) relative(dir, found, value string) string {
	if dir == "." {
		return found
	}
	if below, ok := strings.CutPrefix(found, dir+"/"); ok {
		return below
	}
	return value
}

// disk rewrites the descriptor of a disk at name, of its parent, and so on.
func (r *resolver) disk(name string) error {
	for range maxChain {
		if r.seen[name] {
			return nil
		}
		r.seen[name] = true
		v, err := ReadVMDK(r.files.Root(), name)
		if err != nil {
			return nil // Check says it
		}
		if v.Embedded {
			err = r.embedded(name)
		} else {
			err = r.descriptor(name)
		}
		if err != nil {
			return err
		}
		if v, err = ReadVMDK(r.files.Root(), name); err != nil || v.Parent == "" || unsafeName(v.Parent) != "" {
			return nil
		}
		name = path.Join(path.Dir(name), v.Parent)
	}
	return nil
}

// descriptor rewrites a descriptor that is a file of its own.
func (r *resolver) descriptor(name string) error {
	data, err := r.files.Root().ReadFile(name)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	data, _, _ = bytes.Cut(data, []byte{0})
	text, err := r.lines(name, data)
	if err != nil {
		return err
	}
	return r.replace(name, text)
}

// embedded rewrites a descriptor in a sparse file, within the sectors that it has.
func (r *resolver) embedded(name string) error {
	file, err := r.files.Root().OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	head, err := readAt(file, 0, headerSize)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	h, err := readSparseHeader(file, head, info.Size())
	if err != nil {
		return nil // Check says it
	}
	old, err := readAt(file, h.descriptor*sectorSize, int(h.descriptorSize*sectorSize))
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	data, _, _ := bytes.Cut(old, []byte{0})
	text, err := r.lines(name, data)
	if err != nil || bytes.Equal(text, data) {
		return err
	}
	if len(text) >= len(old) {
		return &CheckError{File: name, Reason: "there is no room in the file for the descriptor in UTF-8; give the parent's file a shorter name"}
	}
	_, err = file.WriteAt(append(text, make([]byte, len(old)-len(text))...), h.descriptor*sectorSize)
	return err
}

var (
	encodingLine = regexp.MustCompile(`(?im)^[ \t]*encoding[ \t]*=[ \t]*"?([^"\r\n]*)"?`)
	parentLine   = regexp.MustCompile(`(?i)^([ \t]*parentFileNameHint[ \t]*=[ \t]*")([^"]*)(".*)$`)
)

// lines rewrites the lines of a descriptor.
func (r *resolver) lines(name string, data []byte) ([]byte, error) {
	declared := ""
	if m := encodingLine.FindSubmatch(data); m != nil {
		declared = string(m[1])
	}
	text, from, err := decodeText(data, declared)
	if err != nil {
		return nil, (&checker{}).locate(name, "", "", err)
	}
	var b strings.Builder
	for line := range strings.SplitAfterSeq(string(text), "\n") {
		content := strings.TrimRight(line, "\r\n")
		end := line[len(content):]
		if m := parentLine.FindStringSubmatch(content); m != nil {
			line = m[1] + r.find(name, m[2], from) + m[3] + end
		} else if from != nil && encodingLine.MatchString(content) {
			line = `encoding="UTF-8"` + end
		} else if m := extentLine.FindStringSubmatch(strings.Trim(content, " \t")); m != nil {
			line = r.extent(name, line, m, from) + end
		}
		b.WriteString(line)
	}
	return []byte(b.String()), nil
}

// extent rewrites the line of an extent: the file's name, and the offset if QEMU cannot read it. An extent of VMFS with
// an offset other than 0 is one of FLAT to all readers.
func (r *resolver) extent(name, line string, m []string, from encoding.Encoding) string {
	access, sectors, kind, file, offset := m[1], m[2], m[3], m[4], m[5]
	to := r.find(name, file, from)
	odd := offset != "" && kind != "FLAT"
	if file == "" || to == file && !odd {
		return strings.TrimRight(line, "\r\n")
	}
	if odd && strings.Trim(offset, "0") == "" {
		offset = ""
	} else if kind == "VMFS" && odd {
		kind = "FLAT"
	}
	line = access + " " + sectors + " " + kind + ` "` + to + `"`
	if offset != "" {
		line += " " + offset
	}
	return line
}

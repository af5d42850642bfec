package image

import (
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// maxElement is the longest file name that the usual file systems take.
const maxElement = 255

// cleanName turns an entry's name into a slash-separated path below the
// image's folder, or refuses it. "." is the folder itself. Only names pass
// that mean the same file on every host: what Linux takes and Windows or macOS
// do not is refused as well, for images travel.
func cleanName(raw string, l Limits) (string, error) {
	if len(raw) > l.PathLength {
		return "", over(ErrPathTooLong, "path %s is longer than the %d bytes that are allowed", quoted(raw), l.PathLength)
	}
	if problem := badPath(raw); problem != "" {
		return "", fail(ErrUnsafe, nil, "the image's path %s %s", quoted(raw), problem)
	}
	name := path.Clean(raw)
	if name == "." {
		return name, nil
	}
	elements := strings.Split(name, "/")
	if len(elements) > l.PathDepth {
		return "", over(ErrPathTooDeep, "path %s has more than the %d elements that are allowed", quoted(raw), l.PathDepth)
	}
	for _, e := range elements {
		if problem := badElement(e); problem != "" {
			return "", fail(ErrUnsafe, nil, "the image's path %s %s", quoted(raw), problem)
		}
	}
	return name, nil
}

func badPath(raw string) string {
	switch {
	case raw == "":
		return "is empty"
	case !utf8.ValidString(raw):
		return "is not UTF-8"
	case strings.HasPrefix(raw, "/"):
		return "is absolute"
	case strings.ContainsAny(raw, `\:*?"<>|`):
		return `has one of \ : * ? " < > |, which not every host takes`
	}
	for _, e := range strings.Split(raw, "/") {
		if e == ".." {
			return "leaves the image's folder"
		}
	}
	for _, r := range raw {
		if !unicode.IsPrint(r) {
			return "has a character that cannot be printed"
		}
	}
	return ""
}

func badElement(e string) string {
	switch {
	case len(e) > maxElement:
		return "has an element of more than " + strconv.Itoa(maxElement) + " bytes"
	case strings.HasSuffix(e, ".") || strings.HasSuffix(e, " "):
		return "has an element that ends in a dot or a blank, which not every host keeps"
	case isReserved(e):
		return "has an element that is a device's name on Windows"
	default:
		return ""
	}
}

// isReserved reports whether a name, whatever its extension, means a device on
// Windows (Microsoft, "Naming Files, Paths, and Namespaces").
func isReserved(e string) bool {
	stem, _, _ := strings.Cut(e, ".")
	stem = strings.ToUpper(strings.TrimRight(stem, " "))
	switch stem {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	n, ok := strings.CutPrefix(stem, "COM")
	if !ok {
		n, ok = strings.CutPrefix(stem, "LPT")
	}
	return ok && utf8.RuneCountInString(n) == 1 && strings.Contains("0123456789¹²³", n)
}

// names remembers an image's paths, to find two that some host takes for one.
type names struct {
	seen map[string]spelling // by fold of the path
}

type spelling struct {
	name string
	dir  bool
}

// add takes note of a path and of the folders that it implies.
func (n *names) add(name string, dir bool) error {
	if fold(name) == recordName {
		return fail(ErrInvalid, nil, "the image has a file %s at its top, a name that is taken here", recordName)
	}
	for parent := path.Dir(name); parent != "."; parent = path.Dir(parent) {
		if err := n.note(parent, true); err != nil {
			return err
		}
	}
	return n.note(name, dir)
}

func (n *names) note(name string, dir bool) error {
	key := fold(name)
	was, ok := n.seen[key]
	switch {
	case !ok:
		n.seen[key] = spelling{name: name, dir: dir}
		return nil
	case was.name != name:
		return fail(ErrUnsafe, nil, "the image's paths %s and %s are one on hosts that ignore letter case or Unicode forms", quoted(was.name), quoted(name))
	case dir && was.dir:
		return nil
	default:
		return fail(ErrUnsafe, nil, "the image has %s twice", quoted(name))
	}
}

// fold maps all spellings of a name that some file system takes for one to one
// string.
func fold(name string) string {
	return norm.NFD.String(cases.Fold().String(norm.NFD.String(name)))
}

// quoted shows a name from an archive in a message: printable, and not longer
// than a line.
func quoted(name string) string {
	const most = 120
	if len(name) > most {
		return strconv.QuoteToASCII(name[:most]) + "..."
	}
	return strconv.Quote(name)
}

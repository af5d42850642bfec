package image

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/unicode/norm"
)

// maxElement is the longest file name that the usual file systems take.
const maxElement = 255

// cleanName turns an entry's name into a slash-separated path below the
// image's folder, or refuses it. "." is the folder itself. A name that leads out
// of the folder on some host is unsafe. Others that not every host takes, or not
// every host takes for the same file, are invalid, for images travel.
func cleanName(raw string, l Limits) (string, error) {
	if len(raw) > l.PathLength {
		return "", over(ErrPathTooLong, "path %s is longer than the %d bytes that are allowed", quoted(raw), l.PathLength)
	}
	if problem := outside(raw); problem != "" {
		return "", fail(ErrUnsafe, nil, "the image's path %s %s", quoted(raw), problem)
	}
	raw = fromCodePage(raw)
	if problem := badPath(raw); problem != "" {
		return "", fail(ErrInvalid, nil, "the image's path %s %s; rename the file and pack the image again", quoted(raw), problem)
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
			return "", fail(ErrInvalid, nil, "the image's path %s %s; rename the file and pack the image again", quoted(raw), problem)
		}
	}
	return name, nil
}

// outside says how a path leads out of the image's folder, on any system.
func outside(raw string) string {
	slashed := strings.ReplaceAll(raw, `\`, "/")
	switch {
	case strings.HasPrefix(slashed, "/"):
		return "is absolute"
	case len(raw) > 1 && raw[1] == ':' && (raw[0]|0x20 >= 'a' && raw[0]|0x20 <= 'z'):
		return "begins with a drive"
	case slices.Contains(strings.Split(slashed, "/"), ".."):
		return "leaves the image's folder"
	}
	return ""
}

func badPath(raw string) string {
	switch {
	case raw == "":
		return "is empty"
	case strings.ContainsAny(raw, `\:*?"<>|`):
		return `has one of \ : * ? " < > |, which not every host takes`
	}
	for _, r := range raw {
		if !unicode.IsGraphic(r) {
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

// add takes note of a path and of the folders that it implies. It reports whether
// there already is a file of exactly this name.
func (n *names) add(name string, dir bool) (again bool, err error) {
	if fold(name) == recordName {
		return false, fail(ErrInvalid, nil, "the image has a file %s at its top, a name that is taken here", recordName)
	}
	for parent := path.Dir(name); parent != "."; parent = path.Dir(parent) {
		if _, err := n.note(parent, true); err != nil {
			return false, err
		}
	}
	return n.note(name, dir)
}

func (n *names) note(name string, dir bool) (again bool, err error) {
	key := fold(name)
	was, ok := n.seen[key]
	switch {
	case !ok:
		n.seen[key] = spelling{name: name, dir: dir}
		return false, nil
	case was.name != name:
		return false, fail(ErrInvalid, nil, "the image's paths %s and %s are one on hosts that ignore letter case or Unicode forms; rename one", quoted(was.name), quoted(name))
	case dir != was.dir:
		return false, fail(ErrInvalid, nil, "the image has %s both as a file and as a folder", quoted(name))
	default:
		return !dir, nil
	}
}

// has reports whether there is a file of exactly this name.
func (n *names) has(name string) bool {
	was, ok := n.seen[fold(name)]
	return ok && was.name == name && !was.dir
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

// fromCodePage returns a name that is not UTF-8 as text, one character for each
// byte: nobody says in which code page a zip or tar archive has its names. The
// characters are those of the code page 437, which is that of zip. Each byte has
// its own, so that the original bytes can be compared. In multibyte code pages, the
// second byte of a character may be a backslash or a bar. These become their wide
// forms, because they separate nothing.
func fromCodePage(raw string) string {
	if utf8.ValidString(raw) {
		return raw
	}
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		b.WriteRune(charmap.CodePage437.DecodeByte(raw[i]))
		if raw[i] < utf8.RuneSelf || i+1 == len(raw) {
			continue
		}
		if wide, ok := map[byte]rune{'\\': '\uff3c', '|': '\uff5c'}[raw[i+1]]; ok {
			b.WriteRune(wide)
			i++
		}
	}
	return b.String()
}

// isForMac reports whether an entry is what macOS adds beside the files: resource
// forks, icons and views of folders. It looks at the name as it is in the archive.
func isForMac(raw string) bool {
	elements := strings.Split(strings.TrimRight(strings.ReplaceAll(raw, `\`, "/"), "/"), "/")
	base := elements[len(elements)-1]
	return strings.HasPrefix(base, "._") || base == "Icon\r" || base == ".DS_Store" || slices.Contains(elements, "__MACOSX")
}

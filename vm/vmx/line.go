package vmx

import "strings"

// line is one line of a .vmx file.
type line struct {
	raw   string // the line in the file, with its terminator
	key   string // in lower case, or "" if the line sets nothing
	value string // unescaped
}

// parseLine reads a line according to VMware's grammar:
//
//	name = value # comment
//	name = "value" # comment
//
// A name contains no blank, '#' or '='. A value without quotes contains no blank or '#', and one in quotes no quote.
// Blanks are spaces and tabs. A line of any other form sets nothing. If it is not empty or a comment, VMware refuses
// the file.
func parseLine(raw string) line {
	l := line{raw: raw}
	text := strings.TrimLeft(strings.TrimRight(raw, "\r\n"), " \t")
	end := strings.IndexAny(text, " \t#=")
	if end <= 0 {
		return l
	}
	name, rest := text[:end], strings.TrimLeft(text[end:], " \t")
	if !strings.HasPrefix(rest, "=") {
		return l
	}
	rest = strings.TrimLeft(rest[1:], " \t")

	var value string
	if quoted, ok := strings.CutPrefix(rest, `"`); ok {
		if value, rest, ok = strings.Cut(quoted, `"`); !ok {
			return l
		}
	} else {
		end := strings.IndexAny(rest, " \t#")
		if end < 0 {
			end = len(rest)
		}
		value, rest = rest[:end], rest[end:]
	}
	if rest = strings.TrimLeft(rest, " \t"); rest != "" && rest[0] != '#' {
		return l
	}
	l.key, l.value = lower(name), unescape(value)
	return l
}

// name returns the key in the case of the file.
func (l line) name() string {
	name, _, _ := strings.Cut(l.raw, "=")
	return strings.Trim(name, " \t")
}

// isComment reports whether VMware ignores the line. It refuses a file with other lines that set nothing.
func (l line) isComment() bool {
	text := strings.Trim(l.raw, " \t\r\n")
	return text == "" || text[0] == '#'
}

// terminator returns the end of the line: "\n", "\r\n", "\r", or "" at the end of the file.
func (l line) terminator() string {
	return l.raw[len(strings.TrimRight(l.raw, "\r\n")):]
}

// cutLine splits s after its first line. To VMware a line ends in "\n", "\r\n" or a single "\r". If this package used
// fewer terminators, a file could hide a key from it.
func cutLine(s string) (first, rest string) {
	i := strings.IndexAny(s, "\r\n")
	if i < 0 {
		return s, ""
	}
	if strings.HasPrefix(s[i:], "\r\n") {
		i++
	}
	return s[:i+1], s[i+1:]
}

// lower converts ASCII letters to lower case, like VMware, and no other bytes.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

const hexDigits = "0123456789ABCDEF"

// escape returns the value in a form that can be put in quotes on one line: '|' and two hexadecimal digits stand for a
// byte. VMware escapes control characters except the tab, DEL, the quote and '|'. escape also escapes the equals sign:
// VMware can read that, and govmx refuses a file with two equals signs in a line.
func escape(value string) string {
	var b strings.Builder
	for i := range len(value) {
		c := value[i]
		if c < ' ' && c != '\t' || c == 0x7f || c == '"' || c == '|' || c == '=' {
			b.WriteByte('|')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// unescape is the inverse of escape. A '|' without two hexadecimal digits after it stands for itself.
func unescape(value string) string {
	if !strings.Contains(value, "|") {
		return value
	}
	b := make([]byte, 0, len(value))
	for i := 0; i < len(value); i++ {
		if value[i] == '|' && i+2 < len(value) {
			hi, lo := unhex(value[i+1]), unhex(value[i+2])
			if hi >= 0 && lo >= 0 {
				b = append(b, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		b = append(b, value[i])
	}
	return string(b)
}

// unhex returns the value of a hexadecimal digit, or -1.
func unhex(c byte) int {
	if 'a' <= c && c <= 'f' {
		c -= 'a' - 'A'
	}
	return strings.IndexByte(hexDigits, c)
}

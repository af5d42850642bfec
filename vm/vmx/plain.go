package vmx

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxPlainLine is the longest line that Plain leaves, in bytes: govmx gives a
// file up at a line of 64 KiB.
const maxPlainLine = 60_000

// The keys that govmx reads as numbers and truth values. It refuses the whole
// file if one of them holds anything else.
var (
	plainBool = regexp.MustCompile(`^(` +
		`(ethernet|ide|sata|scsi|usb|floppy|serial|sharedfolder|pcibridge|sound|vmci0)[^.]*\.present` +
		`|(ethernet|ide|sata|scsi|usb|floppy|serial|sound)[^.]*\.(startconnected|autodetect|trynorxloss|hardwareflowcontrol` +
		`|allowguestconnectioncontrol|wakeonpcktrcv|linkstatepropagation\.enable)` +
		`|sharedfolder[^.]*\.(enabled|readaccess|writeaccess)` +
		`|tools\.(synctime|remindinstall)|remotedisplay\.vnc\.enabled` +
		`|gui\.(exitatpoweroff|fullscreenatpoweron|poweronatstartup|exitonclihlt)` +
		`|isolation\.tools\.(hgfs|copy|paste|dnd)\.disable` +
		`|mem\.hotadd|vcpu\.hotadd|msg\.autoanswer|cleanshutdown|softpoweroff|vhv\.enable|usb\.generic\.autoconnect)$`)
	plainInt = regexp.MustCompile(`^(` +
		`(ethernet|ide|sata|scsi|usb|pcibridge|vmci0|sound)[^.]*\.pcislotnumber` +
		`|pcibridge[^.]*\.functions|usb[^.]*\.(speed|port)` +
		`|remotedisplay\.(vnc\.port|vnc\.zliblevel|depth|maxconnections|maxheight|maxwidth)` +
		`|virtualhw\.version|memsize|numvcpus|rtc\.difffromutc)$`)
)

// Plain leaves only lines that VMware and both of govix's own parsers can
// read, and says for each setting that it had to drop what it was.
//
// Meaning is kept where it can be: an equals sign in a value becomes an escape
// that VMware undoes, words like yes become TRUE. Dropped are lines of no known
// shape (VMware refuses a file with one), all but the last line of a key
// (likewise), keys that govmx takes for others, settings longer than 60,000 bytes, and numbers and truth values
// that are none.
func (f *File) Plain() (dropped []string) {
	lines := f.lines[:0]
	for i, l := range f.lines {
		if l.key == "" {
			l = plainComment(l, f.eol, f.bom != "" && len(lines) == 0)
			if l.raw == "" {
				continue
			}
			if !l.isComment() {
				dropped = append(dropped, fmt.Sprintf("the line %q, which VMware cannot read", shorten(l.raw)))
				continue
			}
		} else {
			reason := "it is set again further down"
			if i == f.last[l.key] {
				l, reason = plainSetting(l, f.eol)
			}
			if reason != "" {
				dropped = append(dropped, fmt.Sprintf("%s = %q: %s", printable(l.key), shorten(l.value), reason))
				continue
			}
		}
		lines = append(lines, l)
	}
	f.lines = slices.Clip(lines)
	if len(f.lines) == 0 {
		f.bom = ""
	}
	f.index()
	return dropped
}

// plainComment removes the blanks before a comment: govmx knows only those
// that begin their line. The first line after a byte order mark does not begin
// it either, and is emptied, as is one that is too long.
func plainComment(l line, eol string, afterBOM bool) line {
	if !l.isComment() {
		return l
	}
	if afterBOM || len(l.raw) > maxPlainLine {
		return line{}
	}
	end := l.terminator()
	if end == "\r" {
		end = eol
	}
	return line{raw: strings.Trim(l.raw, " \t\r\n") + end}
}

// plainSetting rewrites a setting where that makes it readable, or says why
// nothing does.
func plainSetting(l line, eol string) (line, string) {
	// govmx takes control characters for blanks and knows capitals beyond ASCII:
	// it would take the key for another one.
	if strings.ToLower(strings.TrimSpace(l.key)) != l.key {
		return l, "the key has characters that no key has"
	}
	value, ok := l.value, true
	if plainBool.MatchString(l.key) {
		value, ok = plainTruth(value)
	} else if plainInt.MatchString(l.key) {
		value, ok = plainNumber(l.key, value)
	}
	if !ok {
		return l, "the value is not of the kind that this key takes"
	}
	_, rest, _ := strings.Cut(strings.TrimRight(l.raw, "\r\n"), "=")
	rest = strings.Trim(rest, " \t")
	if strings.Contains(rest, "=") || rest != value && rest != `"`+value+`"` {
		l = parseLine(l.name() + ` = "` + escape(value) + `"` + l.terminator())
	}
	if l.terminator() == "\r" {
		l = parseLine(strings.TrimSuffix(l.raw, "\r") + eol)
	}
	if len(l.raw) > maxPlainLine {
		return l, fmt.Sprintf("the setting is longer than %d bytes", maxPlainLine)
	}
	return l, ""
}

// plainTruth gives a truth value the spelling that all readers know.
func plainTruth(value string) (string, bool) {
	if value == "" {
		return value, true
	}
	yes, ok := parseBool(value)
	if !ok {
		return "", false
	}
	if yes {
		return "TRUE", true
	}
	return "FALSE", true
}

// plainNumber makes digits of a whole number.
func plainNumber(key, value string) (string, bool) {
	value = strings.Trim(value, " \t")
	if value == "" {
		return value, true
	}
	signed := strings.HasSuffix(key, ".pcislotnumber") || key == "rtc.difffromutc"
	n, err := strconv.ParseFloat(value, 64)
	const most = 1 << 53 // the whole numbers up to here are exact
	if err != nil || n != float64(int64(n)) || n > most || n < -most || n < 0 && !signed {
		return "", false
	}
	return strconv.FormatInt(int64(n), 10), true
}

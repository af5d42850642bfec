package vmx

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxNormalLine is the longest line after Normalize, in bytes. govmx cannot read lines of 64 KiB.
const maxNormalLine = 60_000

// The keys whose values govmx reads as numbers and booleans. It refuses a file with other values of them.
var (
	govmxBool = regexp.MustCompile(`^(` +
		`(ethernet|ide|sata|scsi|usb|floppy|serial|sharedfolder|pcibridge|sound|vmci0)[^.]*\.present` +
		`|(ethernet|ide|sata|scsi|usb|floppy|serial|sound)[^.]*\.(startconnected|autodetect|trynorxloss|hardwareflowcontrol` +
		`|allowguestconnectioncontrol|wakeonpcktrcv|linkstatepropagation\.enable)` +
		`|sharedfolder[^.]*\.(enabled|readaccess|writeaccess)` +
		`|tools\.(synctime|remindinstall)|remotedisplay\.vnc\.enabled` +
		`|gui\.(exitatpoweroff|fullscreenatpoweron|poweronatstartup|exitonclihlt)` +
		`|isolation\.tools\.(hgfs|copy|paste|dnd)\.disable` +
		`|mem\.hotadd|vcpu\.hotadd|msg\.autoanswer|cleanshutdown|softpoweroff|vhv\.enable|usb\.generic\.autoconnect)$`)
	govmxInt = regexp.MustCompile(`^(` +
		`(ethernet|ide|sata|scsi|usb|pcibridge|vmci0|sound)[^.]*\.pcislotnumber` +
		`|pcibridge[^.]*\.functions|usb[^.]*\.(speed|port)` +
		`|remotedisplay\.(vnc\.port|vnc\.zliblevel|depth|maxconnections|maxheight|maxwidth)` +
		`|virtualhw\.version|memsize|numvcpus|rtc\.difffromutc)$`)
)

// Normalize rewrites the file so that VMware and both parsers of govix can read it. It returns a description of each
// setting that it removes.
//
// Where possible, settings keep their meaning: an equals sign in a value is escaped, which VMware can read, and words
// such as yes become TRUE. Normalize removes lines of an unknown form (VMware refuses a file with one), all but the
// last line of a key (likewise), keys that govmx reads as other keys, settings longer than 60,000 bytes, and invalid
// numbers and booleans.
func (f *File) Normalize() (removed []string) {
	lines := f.lines[:0]
	for i, l := range f.lines {
		if l.key == "" {
			l = normalComment(l, f.eol, f.bom != "" && len(lines) == 0)
			if l.raw == "" {
				continue
			}
			if !l.isComment() {
				removed = append(removed, fmt.Sprintf("the line %q, which VMware cannot read", shorten(l.raw)))
				continue
			}
		} else {
			reason := "it is set again below"
			if i == f.last[l.key] {
				l, reason = normalSetting(l, f.eol)
			}
			if reason != "" {
				removed = append(removed, fmt.Sprintf("%s = %q: %s", printable(l.key), shorten(l.value), reason))
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
	return removed
}

// normalComment removes the blanks before a comment, because govmx reads only comments at the start of a line. It
// returns an empty line for a comment that is too long, or that follows the byte order mark.
func normalComment(l line, eol string, afterBOM bool) line {
	if !l.isComment() {
		return l
	}
	if afterBOM || len(l.raw) > maxNormalLine {
		return line{}
	}
	end := l.terminator()
	if end == "\r" {
		end = eol
	}
	return line{raw: strings.Trim(l.raw, " \t\r\n") + end}
}

// normalSetting returns a setting that all readers can read, or the reason why there is none.
func normalSetting(l line, eol string) (line, string) {
	// govmx reads control characters as blanks and converts non-ASCII letters to lower case, so it would read another
	// key.
	if strings.ToLower(strings.TrimSpace(l.key)) != l.key {
		return l, "the key contains characters that no key has"
	}
	value, ok := l.value, true
	if govmxBool.MatchString(l.key) {
		value, ok = normalBool(value)
	} else if govmxInt.MatchString(l.key) {
		value, ok = normalNumber(l.key, value)
	}
	if !ok {
		return l, "the value does not have the type of this key"
	}
	_, rest, _ := strings.Cut(strings.TrimRight(l.raw, "\r\n"), "=")
	rest = strings.Trim(rest, " \t")
	if strings.Contains(rest, "=") || rest != value && rest != `"`+value+`"` {
		l = parseLine(l.name() + ` = "` + escape(value) + `"` + l.terminator())
	}
	if l.terminator() == "\r" {
		l = parseLine(strings.TrimSuffix(l.raw, "\r") + eol)
	}
	if len(l.raw) > maxNormalLine {
		return l, fmt.Sprintf("the setting is longer than %d bytes", maxNormalLine)
	}
	return l, ""
}

// normalBool returns a boolean in the form that all readers support.
func normalBool(value string) (string, bool) {
	if value == "" {
		return value, true
	}
	b, ok := parseBool(value)
	if !ok {
		return "", false
	}
	if b {
		return "TRUE", true
	}
	return "FALSE", true
}

// normalNumber returns a whole number in digits.
func normalNumber(key, value string) (string, bool) {
	value = strings.Trim(value, " \t")
	if value == "" {
		return value, true
	}
	signed := strings.HasSuffix(key, ".pcislotnumber") || key == "rtc.difffromutc"
	n, err := strconv.ParseFloat(value, 64)
	const limit = 1 << 53 // a float64 is exact up to here
	if err != nil || n != float64(int64(n)) || n > limit || n < -limit || n < 0 && !signed {
		return "", false
	}
	return strconv.FormatInt(int64(n), 10), true
}

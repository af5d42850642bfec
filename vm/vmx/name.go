package vmx

import "strings"

// maxName is the longest file name taken, in bytes. QEMU cuts the names of
// extents at 511 and those of parents at 1023.
const maxName = 500

// unsafeName says why name may lead outside the folder of the file that names
// it, or "" if it cannot: it is then a relative path with slashes.
//
// A colon is refused wherever it stands: QEMU takes what is before one for a
// protocol (json:, nbd:, file:, ...), Windows for a drive or a stream.
func unsafeName(name string) string {
	switch {
	case strings.HasPrefix(name, "/"):
		return "the name is absolute; only files of the image itself may be named, relative to this file"
	case strings.Contains(name, `\`):
		return "the name has a backslash in it; only files of the image itself may be named, with forward slashes"
	case strings.Contains(name, ":"):
		return "the name has a colon in it, which makes it a drive, a device, a protocol or a URL; only files of the image itself may be named"
	case strings.IndexFunc(name, isControl) >= 0:
		return "the name has a control character in it; only files of the image itself may be named"
	case len(name) > maxName:
		return "the name is longer than 500 bytes"
	}
	for elem := range strings.SplitSeq(name, "/") {
		if elem == ".." {
			return `the name has ".." in it; only files below this one's folder may be named`
		}
	}
	return ""
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

package vmx

import "strings"

// maxName is the longest file name in bytes. QEMU truncates the names of extents to 511 bytes and those of parents to
// 1023.
const maxName = 500

// unsafeName returns the reason why name may be outside the folder of the file that contains it. It returns "" if name
// is a relative path with slashes inside that folder.
//
// No colon is allowed: QEMU reads what precedes one as a protocol (json:, nbd:, file:, ...), and Windows as a drive or
// a file with a stream.
func unsafeName(name string) string {
	switch {
	case strings.HasPrefix(name, "/"):
		return "the name is absolute; only files of the image itself may be named, relative to this file"
	case strings.Contains(name, `\`):
		return "the name contains a backslash; only files of the image itself may be named, with forward slashes"
	case strings.Contains(name, ":"):
		return "the name contains a colon, which makes it a drive, a device, a protocol or a URL; only files of the image itself may be named"
	case strings.IndexFunc(name, isControl) >= 0:
		return "the name contains a control character; only files of the image itself may be named"
	case len(name) > maxName:
		return "the name is longer than 500 bytes"
	}
	for elem := range strings.SplitSeq(name, "/") {
		if elem == ".." {
			return `the name contains ".."; only files below the folder of this file may be named`
		}
	}
	return ""
}

// leavesImage reports whether a name that unsafeName refuses leads out of the image on some host. One with backslashes
// may be a path inside the image on Windows, which [Resolve] did not find.
func leavesImage(name string) bool {
	return !strings.Contains(name, `\`) || unsafeName(strings.ReplaceAll(name, `\`, "/")) != ""
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

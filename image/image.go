package image

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/url"
	"os"
	"syscall"
)

// Source is the location of an image and the checksum that its bytes must have.
type Source struct {
	URL string // absolute, http or https, without user info
	Sum Sum    // as ParseSum returned it
}

// Stage is a part of an image's way that takes long enough to be shown.
type Stage string

// The stages, in their order. Both are passed by every image that is not
// there yet; a failed source may bring Downloading back.
const (
	Downloading Stage = "downloading"
	Unpacking   Stage = "unpacking"
)

// Progress is how far a fetch has got. While Downloading, Bytes counts the
// archive's bytes on disk; while Unpacking, those that the unpacker has read.
type Progress struct {
	Stage Stage
	Bytes int64
	Total int64 // the archive's size, or -1 while it is unknown
}

// Gold is an unpacked image.
type Gold struct {
	Dir string // absolute path of the image's folder
	VMX string // absolute path of its .vmx file
}

// Options configure a [Cache]. The zero Options are usable.
type Options struct {
	// Prepare makes an unpacked image usable before it is checked: name is the
	// path of its .vmx file or, if it has none, of its .ovf file. Prepare may
	// change files, and returns the path of the .vmx file. Its errors count as
	// those of Check. Nil changes nothing and accepts no .ovf file.
	Prepare func(ctx context.Context, files *Files, name string) (vmx string, err error)

	// Check looks at an unpacked image before it becomes gold: root is its
	// folder, vmx its .vmx file's slash-separated path in it. An error makes
	// Ensure fail with ErrInvalid, or with ErrUnsafe if the error has a
	// method Unsafe() bool that returns true; its text is for the client.
	Check func(root *os.Root, vmx string) error

	// CacheBytes is the disk space that images may take. Beyond it the least
	// recently used ones that nobody needs go, when one is added. 0 means no
	// limit but the disk's.
	CacheBytes int64

	// Derived names a folder in the Cache's own in which others keep what they
	// made of images, each in a folder of the image's name, while a machine
	// needs it. It counts as the image's disk space and goes with the image. ""
	// means none.
	Derived string

	// CheckURL, if set, is asked about every URL that a redirect leads to, before
	// a request is made. Its error ends the download and reaches the caller
	// unchanged. Unlike DialControl it also sees what a proxy is asked for.
	CheckURL func(u *url.URL) error

	// DialControl is asked before each connection, with the address that is
	// really dialled, as net.Dialer.Control is; an error forbids the
	// connection; its error reaches the caller. Behind a proxy that is the
	// proxy's address.
	DialControl func(network, address string, c syscall.RawConn) error

	// Credentials are what requests to image servers carry. Nil means none.
	Credentials *Credentials

	// RootCAs are the certificate authorities of image servers. Nil means those
	// of the host.
	RootCAs *x509.CertPool

	// Downloaded is called after each download with how many bytes it
	// brought, and whether the archive was then whole and right. It returns
	// at once, and may be called by many goroutines at once. Nil is not called.
	Downloaded func(bytes int64, err error)

	Limits    Limits
	Log       *slog.Logger // nil means none
	UserAgent string       // of HTTP requests; "" means osx-builder
}

// check refuses a source that cannot be downloaded at all.
func (s Source) check() error {
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" || u.User != nil || (u.Scheme != "http" && u.Scheme != "https") {
		return fail(ErrDownload, err, "image URL %q is not an absolute http or https URL without user info", PublicURL(s.URL))
	}
	if _, err := ParseSum(s.Sum.Type, s.Sum.Hex); err != nil {
		return fail(ErrChecksum, err, "image checksum: %v", err)
	}
	return nil
}

// PublicURL returns the part of a URL that anybody may see: without user info, query and fragment, which can contain
// secrets.
func PublicURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(unreadable)"
	}
	u.User, u.RawQuery, u.ForceQuery, u.Fragment = nil, "", false, ""
	return u.String()
}

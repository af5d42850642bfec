package vm

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"osx-builder/image"
)

// The defaults and bounds of a Request's fields.
const (
	DefaultCPUs   = 2
	DefaultMemory = "512mib"
	MinMemory     = 32 // MiB

	DefaultToolsTimeout = 30 * time.Second
	MaxToolsTimeout     = time.Hour

	// maxURL is longer than any URL that servers and proxies accept.
	maxURL = 8192
)

// Request is what a client asks for, as its JSON says it.
type Request struct {
	CPUs             int         `json:"cpus"`
	Memory           string      `json:"memory"`
	Disk             string      `json:"disk"` // of the first disk; "" means the image's size
	NetworkType      NetworkType `json:"network_type"`
	Forward          []int       `json:"forward"` // TCP ports of the guest
	Image            Image       `json:"image"`
	LaunchGUI        bool        `json:"launch_gui"`
	CallbackURL      string      `json:"callback_url"`
	ToolsInitTimeout Timeout     `json:"tools_init_timeout"`
	ExpiresIn        Lifetime    `json:"expires_in"`
	Name             string      `json:"name"`
	Start            StartMode   `json:"start"`    // "" means the Manager's default
	Identity         Identity    `json:"identity"` // "" means that it is left as it is

	Labels       Labels       `json:"labels"`
	ReadyWhen    *ReadyWhen   `json:"ready_when"`
	ReadyTimeout ReadyTimeout `json:"ready_timeout"`

	SSHAuthorizedKeys []string `json:"ssh_authorized_keys"`
	Hostname          string   `json:"hostname"`
	UserData          string   `json:"user_data"`

	Owner   string   `json:"-"` // the name of the client's token
	Invalid []*Error `json:"-"` // fields that could not be read; Create reports them with all other invalid fields
}

// Image is the location of an image archive and its checksum.
type Image struct {
	URL          string `json:"url"`
	Checksum     string `json:"checksum"`
	ChecksumType string `json:"checksum_type"`
}

// spec is a checked Request: a result of normalize is usable as it is. It is part
// of the record on disk.
type spec struct {
	Name         string       `json:"name,omitempty"`
	Image        Image        `json:"image"`
	CPUs         int          `json:"cpus"`
	Memory       int          `json:"memory"`              // MiB, a multiple of 4
	MemoryText   string       `json:"memory_text"`         // as asked, lower case
	Disk         int64        `json:"disk,omitempty"`      // bytes, a multiple of 1 MiB, 0 if not given
	DiskText     string       `json:"disk_text,omitempty"` // as asked, lower case
	Network      NetworkType  `json:"network_type"`
	Forward      []int        `json:"forward,omitempty"` // as asked
	LaunchGUI    bool         `json:"launch_gui"`
	Start        StartMode    `json:"start,omitempty"` // "" means that it boots
	Identity     Identity     `json:"identity,omitempty"`
	CallbackURL  string       `json:"callback_url,omitempty"`
	ToolsSeconds int          `json:"tools_init_timeout"`   // as asked, 0 if not given
	ExpiresIn    int          `json:"expires_in,omitempty"` // seconds, 0 if not given
	Labels       Labels       `json:"labels,omitempty"`
	ReadyWhen    *ReadyWhen   `json:"ready_when,omitempty"`
	ReadySeconds int          `json:"ready_timeout,omitempty"` // as asked, 0 if not given
	Guest        *GuestConfig `json:"guest_config,omitempty"`
}

func (s spec) toolsTimeout() time.Duration {
	if s.ToolsSeconds == 0 {
		return DefaultToolsTimeout
	}
	return time.Duration(s.ToolsSeconds) * time.Second
}

func (s spec) source() (image.Source, error) {
	sum, err := image.ParseSum(s.Image.ChecksumType, s.Image.Checksum)
	return image.Source{URL: s.Image.URL, Sum: sum}, err
}

// normalize checks a request against the host's limits and fills in the defaults. It adds all invalid fields to p; the
// spec is usable if there are none.
func normalize(q Request, limits Limits, p *problems) spec {
	s := spec{
		Name: q.Name, CPUs: cmp.Or(q.CPUs, DefaultCPUs), LaunchGUI: q.LaunchGUI,
		Network: cmp.Or(q.NetworkType, NAT), CallbackURL: q.CallbackURL, ReadyWhen: q.ReadyWhen,
	}
	if s.CPUs < 0 || s.CPUs > limits.CPUs {
		p.add(fieldError("cpus", fmt.Sprint(s.CPUs), fmt.Sprintf("from 1 to %d on this host", limits.CPUs)))
	}
	var err error
	s.Memory, s.MemoryText, err = parseMemory(q.Memory, limits.Memory)
	p.add(err)
	if !isNetworkType(s.Network) {
		p.add(fieldError("network_type", fmt.Sprintf("%q", s.Network), "bridged, nat or hostonly"))
	}
	s.Forward, err = parseForward(q.Forward)
	p.add(err)
	s.Image = parseImage("image.", q.Image, p)
	if s.CallbackURL != "" {
		_, err = parseURL("callback_url", s.CallbackURL)
		p.add(err)
	}
	s.Start, err = parseStart(q.Start)
	p.add(err)
	s.Identity, err = parseIdentity(q.Identity)
	p.add(err)
	s.ToolsSeconds, err = parseToolsTimeout(time.Duration(q.ToolsInitTimeout))
	p.add(err)
	s.ReadySeconds = parseReadyWhen(s.ReadyWhen, time.Duration(q.ReadyTimeout), p)
	p.add(checkName(s.Name))
	s.Labels = parseLabels(q.Labels, p)
	s.Guest = parseGuestConfig(q, p)
	return s
}

func isNetworkType(t NetworkType) bool {
	return slices.Contains([]NetworkType{Bridged, NAT, HostOnly}, t)
}

// parseImage checks an image's URL and checksum. prefix begins the names of its fields in errors.
func parseImage(prefix string, i Image, p *problems) Image {
	u, err := parseURL(prefix+"url", i.URL)
	p.add(err)
	if err == nil && u.User != nil {
		p.add(fieldError(prefix+"url", fmt.Sprintf("%q", u.Redacted()), "a URL without user name and password"))
	}
	i.ChecksumType = strings.ToLower(i.ChecksumType)
	if i.ChecksumType != "" && !slices.Contains(image.SumTypes(), i.ChecksumType) {
		p.add(fieldError(prefix+"checksum_type", fmt.Sprintf("%q", i.ChecksumType), "md5, sha1, sha256 or sha512, or absent: the checksum's length determines it"))
		i.ChecksumType = ""
	}
	if strings.TrimSpace(i.Checksum) == "" {
		p.add(missing(prefix+"checksum", `the archive's checksum in hex, "sha256:" and the hex digits, or a line that sha256sum prints`))
		return i
	}
	sum, err := image.ReadSum(i.ChecksumType, i.Checksum)
	if err != nil {
		p.add(&Error{Code: CodeInvalidField, Field: prefix + "checksum", Message: prefix + "checksum: " + err.Error()})
	}
	i.Checksum, i.ChecksumType = sum.Hex, sum.Type
	return i
}

func parseURL(field, raw string) (*url.URL, error) {
	const want = "an absolute http or https URL"
	if raw == "" {
		return nil, missing(field, want)
	}
	if len(raw) > maxURL {
		return nil, fieldError(field, fmt.Sprintf("%.40q… (%d bytes)", raw, len(raw)), fmt.Sprintf("%s of at most %d bytes", want, maxURL))
	}
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return nil, fieldError(field, fmt.Sprintf("%q", raw), want)
	}
	return u, nil
}

// iecSize is a number with an IEC unit. The unit's "b" may be missing, as in
// Kubernetes.
var iecSize = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([kmgtpe]i)b?$`)

// parseMemory reads an IEC size and rounds it up to a multiple of 4 MiB, which
// VMware requires. It returns the MiB, and the size as it was given in lower
// case.
func parseMemory(text string, most int) (mib int, asked string, err error) {
	bytes, asked, err := parseSize("memory", cmp.Or(text, DefaultMemory),
		bound{MinMemory << 20, fmt.Sprintf("%dmib", MinMemory)}, bound{uint64(most) << 20, fmt.Sprintf("%dmib, which is what this host has", most)})
	return int(roundUp(bytes, 4<<20) >> 20), asked, err
}

// bound is the least or the largest size of a field.
type bound struct {
	bytes uint64
	text  string // for messages, with its reason
}

// parseSize reads an IEC size. It returns the bytes, and the size as it was given in lower case.
func parseSize(field, text string, least, most bound) (bytes uint64, asked string, err error) {
	const want = `a size in IEC units, such as "1gib", "1024mib" or "1048576kib"`
	parts := iecSize.FindStringSubmatch(strings.ToLower(strings.TrimSpace(text)))
	if parts == nil {
		return 0, "", fieldError(field, fmt.Sprintf("%q", text), want)
	}
	asked = parts[1] + parts[2] + "b"
	bytes, err = humanize.ParseBytes(asked)
	switch {
	case err != nil || bytes > most.bytes:
		return 0, "", fieldError(field, fmt.Sprintf("%q", text), "at most "+most.text)
	case bytes < least.bytes:
		return 0, "", fieldError(field, fmt.Sprintf("%q", text), "at least "+least.text)
	}
	return bytes, asked, nil
}

// roundUp returns the smallest multiple of step that is not less than bytes.
func roundUp(bytes, step uint64) int64 { return int64((bytes + step - 1) / step * step) } // #nosec G115 -- parseSize bounds it

func parseToolsTimeout(d time.Duration) (seconds int, err error) {
	if d < 0 || d > MaxToolsTimeout {
		return 0, timeoutError(fmt.Sprintf("%q", readable(d)))
	}
	return int((d + time.Second - 1) / time.Second), nil
}

package vm

import (
	"encoding/json"
	"fmt"
	"math"
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
	NetworkType      NetworkType `json:"network_type"`
	Forward          []int       `json:"forward"` // TCP ports of the guest
	Image            Image       `json:"image"`
	LaunchGUI        bool        `json:"launch_gui"`
	CallbackURL      string      `json:"callback_url"`
	ToolsInitTimeout Timeout     `json:"tools_init_timeout"`
	ExpiresIn        Lifetime    `json:"expires_in"`
}

// Image is the location of an image archive and its checksum.
type Image struct {
	URL          string `json:"url"`
	Checksum     string `json:"checksum"`
	ChecksumType string `json:"checksum_type"`
}

// Timeout is a duration. Its JSON is whole seconds, or a string in Go's notation
// ("1m30s"). Zero means the default.
type Timeout time.Duration

// UnmarshalJSON reads both forms. Its errors are *[Error].
func (t *Timeout) UnmarshalJSON(b []byte) error {
	d, ok := parseDuration(b)
	if !ok {
		return timeoutError(string(b))
	}
	*t = Timeout(d)
	return nil
}

func timeoutError(value string) error {
	return fieldError("tools_init_timeout", value,
		`a whole number of seconds or a duration such as "30s", at most 1h`)
}

// Lifetime is a duration with the same JSON as [Timeout]. Zero means none.
type Lifetime time.Duration

// UnmarshalJSON reads both forms. Its errors are *[Error].
func (l *Lifetime) UnmarshalJSON(b []byte) error {
	d, ok := parseDuration(b)
	if !ok {
		return lifetimeError(string(b), MaxLifetime)
	}
	*l = Lifetime(d)
	return nil
}

func lifetimeError(value string, most time.Duration) error {
	return fieldError("expires_in", value, fmt.Sprintf(`a whole number of seconds or a duration such as "90m", from 1s to %v`, most))
}

// parseDuration reads JSON's null, a whole number of seconds or a string in
// Go's notation.
func parseDuration(b []byte) (time.Duration, bool) {
	var seconds float64
	if json.Unmarshal(b, &seconds) == nil {
		whole := seconds == math.Trunc(seconds) && math.Abs(seconds) <= math.MaxInt32
		return time.Duration(seconds) * time.Second, whole
	}
	var text string
	if json.Unmarshal(b, &text) != nil {
		return 0, false
	}
	d, err := time.ParseDuration(text)
	return d, err == nil
}

// spec is a checked Request: a result of normalize is usable as it is. It is part
// of the record on disk.
type spec struct {
	Image        Image       `json:"image"`
	CPUs         int         `json:"cpus"`
	Memory       int         `json:"memory"`      // MiB, a multiple of 4
	MemoryText   string      `json:"memory_text"` // as asked, lower case
	Network      NetworkType `json:"network_type"`
	Forward      []int       `json:"forward,omitempty"` // as asked
	LaunchGUI    bool        `json:"launch_gui"`
	CallbackURL  string      `json:"callback_url,omitempty"`
	ToolsSeconds int         `json:"tools_init_timeout"`   // as asked, 0 if not given
	ExpiresIn    int         `json:"expires_in,omitempty"` // seconds, 0 if not given
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

// normalize checks a request against the host's limits and fills in the
// defaults. Its errors are *[Error] and name the first invalid field.
func normalize(q Request, limits Limits) (spec, error) {
	s := spec{CPUs: q.CPUs, LaunchGUI: q.LaunchGUI, Network: q.NetworkType, CallbackURL: q.CallbackURL}
	if s.CPUs == 0 {
		s.CPUs = DefaultCPUs
	}
	if s.CPUs < 0 || s.CPUs > limits.CPUs {
		return s, fieldError("cpus", fmt.Sprint(s.CPUs), fmt.Sprintf("from 1 to %d on this host", limits.CPUs))
	}
	var err error
	if s.Memory, s.MemoryText, err = parseMemory(q.Memory, limits.Memory); err != nil {
		return s, err
	}
	if s.Network == "" {
		s.Network = NAT
	}
	if !slices.Contains([]NetworkType{Bridged, NAT, HostOnly}, s.Network) {
		return s, fieldError("network_type", fmt.Sprintf("%q", s.Network), "bridged, nat or hostonly")
	}
	if s.Forward, err = parseForward(q.Forward); err != nil {
		return s, err
	}
	if s.Image, err = parseImage(q.Image); err != nil {
		return s, err
	}
	if s.CallbackURL != "" {
		if _, err := parseURL("callback_url", s.CallbackURL); err != nil {
			return s, err
		}
	}
	s.ToolsSeconds, err = parseToolsTimeout(time.Duration(q.ToolsInitTimeout))
	return s, err
}

func parseImage(i Image) (Image, error) {
	u, err := parseURL("image.url", i.URL)
	if err != nil {
		return i, err
	}
	if u.User != nil {
		return i, fieldError("image.url", fmt.Sprintf("%q", u.Redacted()), "a URL without user name and password")
	}
	types := []string{"md5", "sha1", "sha256", "sha512"}
	i.ChecksumType = strings.ToLower(i.ChecksumType)
	if !slices.Contains(types, i.ChecksumType) {
		return i, fieldError("image.checksum_type", fmt.Sprintf("%q", i.ChecksumType), "md5, sha1, sha256 or sha512")
	}
	sum, err := image.ParseSum(i.ChecksumType, i.Checksum)
	if err != nil {
		return i, &Error{Code: CodeInvalidField, Field: "image.checksum", Message: "image.checksum: " + err.Error()}
	}
	i.Checksum = sum.Hex
	return i, nil
}

func parseURL(field, raw string) (*url.URL, error) {
	const want = "an absolute http or https URL"
	if raw == "" {
		return nil, fieldError(field, `""`, want)
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
	if text == "" {
		text = DefaultMemory
	}
	const want = `a size in IEC units, such as "1gib", "1024mib" or "1048576kib"`
	parts := iecSize.FindStringSubmatch(strings.ToLower(strings.TrimSpace(text)))
	if parts == nil {
		return 0, "", fieldError("memory", fmt.Sprintf("%q", text), want)
	}
	asked = parts[1] + parts[2] + "b"
	bytes, err := humanize.ParseBytes(asked)
	if err != nil || bytes > uint64(most)<<20 {
		return 0, "", fieldError("memory", fmt.Sprintf("%q", text), fmt.Sprintf("at most %dmib, which is what this host has", most))
	}
	if bytes < MinMemory<<20 {
		return 0, "", fieldError("memory", fmt.Sprintf("%q", text), fmt.Sprintf("at least %dmib", MinMemory))
	}
	const step = 4 << 20
	return int((bytes + step - 1) / step * 4), asked, nil
}

func parseToolsTimeout(d time.Duration) (seconds int, err error) {
	if d < 0 || d > MaxToolsTimeout {
		return 0, timeoutError(fmt.Sprintf("%q", d))
	}
	return int((d + time.Second - 1) / time.Second), nil
}

// maxShownValue is the largest number of bytes of an invalid value that an error shows.
const maxShownValue = 200

// fieldError says which field is wrong, with the start of the invalid value and what would be right.
func fieldError(field, value, want string) *Error {
	if len(value) > maxShownValue {
		value = fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(value[:maxShownValue], ""), len(value))
	}
	return &Error{Code: CodeInvalidField, Field: field, Message: fmt.Sprintf("%s is %s; it must be %s", field, value, want)}
}

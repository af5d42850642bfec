package client

import (
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// machine has the fields of a machine's document that the command line reads.
type machine struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Owner  string `json:"owner"`
	Phase  string `json:"phase"`
	Status string `json:"status"`
	IP     string `json:"ip_address"`
	CPUs   int    `json:"cpus"`
	Memory string `json:"memory"`
	Image  struct {
		URL string `json:"url"`
	} `json:"image"`
	Network        string        `json:"network_type"`
	GuestOS        string        `json:"guest_os"`
	Progress       *byteProgress `json:"progress"`
	Error          *apiError     `json:"error"`
	PortForwards   []portForward `json:"port_forwards"`
	Warnings       []apiError    `json:"warnings"`
	StoppedBecause string        `json:"stopped_because"`
	ExpiresAt      *time.Time    `json:"expires_at"`
	CreatedAt      time.Time     `json:"created_at"`

	document []byte // the whole document, as the daemon sent it
}

// byteProgress is the progress of a download or of unpacking.
type byteProgress struct {
	Bytes int64  `json:"bytes"`
	Total *int64 `json:"total"` // nil if it is not known
}

// portForward is a port of the daemon's host that leads to a port of the guest.
type portForward struct {
	Host  int `json:"host"`
	Guest int `json:"guest"`
}

func parseMachine(document []byte) (machine, error) {
	m := machine{document: document}
	if err := json.Unmarshal(document, &m); err != nil {
		return m, fmt.Errorf("reading the machine's document: %w", err)
	}
	return m, nil
}

// label names the machine in messages: by its name, if it has one, and by its id, which is short on a terminal.
func (o *output) label(m machine) string {
	id := m.ID
	if isTerminal(o.stderr) {
		id = shortID(m)
	}
	if m.Name == "" {
		return id
	}
	return m.Name + " (" + id + ")"
}

// shortIDLength is the length of a shortened id. More is only needed on hosts with very many machines.
const shortIDLength = 8

func shortID(m machine) string { return m.ID[:min(len(m.ID), shortIDLength)] }

// state returns one word for the machine's phase and power state. If it has a progress, that follows.
func (m machine) state() string {
	switch {
	case m.Phase == "" && m.Error != nil:
		return "unreadable"
	case m.Phase != "ready":
		return strings.TrimSpace(m.Phase + " " + m.percent())
	case m.Status == "powered-on":
		return "ready"
	case m.Status == "powered-off":
		return "off"
	case m.Status == "":
		return "unknown"
	default:
		return m.Status
	}
}

// percent returns the progress, for example "45 %", or "" if it is not known.
func (m machine) percent() string {
	if m.Progress == nil || m.Progress.Total == nil || *m.Progress.Total <= 0 {
		return ""
	}
	return fmt.Sprintf("%d %%", 100*m.Progress.Bytes / *m.Progress.Total)
}

// stateColor returns the colour of a state.
func stateColor(state string) string {
	switch word, _, _ := strings.Cut(state, " "); word {
	case "ready":
		return green
	case "failed", "unreadable", "blocked":
		return red
	case "off", "suspended", "paused", "destroying":
		return grey
	default:
		return yellow
	}
}

// running reports whether the machine's guest may lose something if the machine is destroyed.
func (m machine) running() bool {
	switch m.Status {
	case "", "powered-off":
		return false
	default:
		return true
	}
}

// address returns the address for people, with the forwarded ports if there are any.
func (m machine) address() string {
	text := m.IP
	for i, f := range m.PortForwards {
		separator := ","
		if i == 0 {
			separator = " "
		}
		text += fmt.Sprintf("%s%d→%d", separator, f.Host, f.Guest)
	}
	return text
}

// file returns the name of the image's archive.
func (m machine) file() string {
	u, err := url.Parse(m.Image.URL)
	if err != nil || u.Path == "" {
		return ""
	}
	return path.Base(u.Path)
}

// failure returns the error of a machine whose creation failed.
func (o *output) failure(m machine) error {
	if m.Error == nil {
		m.Error = &apiError{Code: "unknown", Message: "the daemon gave no reason"}
	}
	return &exitError{exitFailed, fmt.Errorf("machine %s failed: %w", o.label(m), m.Error)}
}

// image is an entry of the daemon's image cache.
type image struct {
	Checksum   string    `json:"checksum"`
	DiskBytes  int64     `json:"disk_bytes"`
	VMs        int       `json:"vms"`
	LastUsedAt time.Time `json:"last_used_at"`
	URL        string    `json:"url"`

	ChecksumType string        `json:"checksum_type"`
	Phase        string        `json:"phase"`
	Progress     *byteProgress `json:"progress"`
	Error        *apiError     `json:"error"`
	Pinned       bool          `json:"pinned"`
}

// file is the name of the image's archive.
func (i image) file() string {
	m := machine{}
	m.Image.URL = i.URL
	return m.file()
}

// ageText returns a time relative to now, for example "2 hours ago".
func ageText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return humanize.Time(t)
}

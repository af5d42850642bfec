package client

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
)

// machine has the fields of a machine's document that the command line reads.
type machine struct {
	ID     string `json:"id"`
	Phase  string `json:"phase"`
	Status string `json:"status"`
	IP     string `json:"ip_address"`
	CPUs   int    `json:"cpus"`
	Memory string `json:"memory"`
	Image  struct {
		URL string `json:"url"`
	} `json:"image"`
	Progress  *byteProgress `json:"progress"`
	Error     *apiError     `json:"error"`
	CreatedAt time.Time     `json:"created_at"`

	document []byte // the whole document, as the daemon sent it
}

// byteProgress is the progress of a download or of unpacking.
type byteProgress struct {
	Bytes int64  `json:"bytes"`
	Total *int64 `json:"total"` // nil if it is not known
}

func parseMachine(document []byte) (machine, error) {
	m := machine{document: document}
	if err := json.Unmarshal(document, &m); err != nil {
		return m, fmt.Errorf("reading the machine's document: %w", err)
	}
	return m, nil
}

// failure returns the error of a machine whose creation failed.
func (m machine) failure() error {
	if m.Error == nil {
		m.Error = &apiError{Code: "unknown", Message: "the daemon gave no reason"}
	}
	return &exitError{exitFailed, fmt.Errorf("machine %s failed: %w", m.ID, m.Error)}
}

// phaseText returns the phase with its progress or error code.
func (m machine) phaseText() string {
	switch {
	case m.Error != nil:
		return m.Phase + " (" + m.Error.Code + ")"
	case m.Progress != nil && m.Progress.Total != nil && *m.Progress.Total > 0:
		return fmt.Sprintf("%s %d %%", m.Phase, 100*m.Progress.Bytes / *m.Progress.Total)
	default:
		return m.Phase
	}
}

// image is an entry of the daemon's image cache.
type image struct {
	Checksum   string    `json:"checksum"`
	DiskBytes  int64     `json:"disk_bytes"`
	VMs        int       `json:"vms"`
	LastUsedAt time.Time `json:"last_used_at"`
	URL        string    `json:"url"`
}

// ageText returns a time relative to now, for example "2 hours ago".
func ageText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return humanize.Time(t)
}

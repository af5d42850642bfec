package client

import (
	"encoding/json"
	"fmt"
	"time"
)

// machine is what the command line itself reads of a machine's document.
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
	Progress  *amount   `json:"progress"`
	Error     *refusal  `json:"error"`
	CreatedAt time.Time `json:"created_at"`

	document []byte // all of it, as the daemon sent it
}

// amount is how far a download or an unpacking is.
type amount struct {
	Bytes int64  `json:"bytes"`
	Total *int64 `json:"total"` // nil where nobody knows
}

func parseMachine(document []byte) (machine, error) {
	m := machine{document: document}
	if err := json.Unmarshal(document, &m); err != nil {
		return m, fmt.Errorf("reading the machine's document: %w", err)
	}
	return m, nil
}

// failed is the error of a machine whose making failed.
func (m machine) failed() error {
	if m.Error == nil {
		m.Error = &refusal{Code: "unknown", Message: "the daemon does not say why"}
	}
	return &failure{exitFailed, fmt.Errorf("machine %s failed: %w", m.ID, m.Error)}
}

// image is an entry of the cache.
type image struct {
	Checksum   string    `json:"checksum"`
	DiskBytes  int64     `json:"disk_bytes"`
	VMs        int       `json:"vms"`
	LastUsedAt time.Time `json:"last_used_at"`
	URL        string    `json:"url"`
}

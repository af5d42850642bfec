package vm

import (
	"context"
	"time"
)

// Template is a guest whose memory was saved after it had booted, so that
// machines can start from it, as the API shows it.
type Template struct {
	Key          string      `json:"key"`
	Checksum     string      `json:"checksum"`      // of the image
	ChecksumType string      `json:"checksum_type"` // of the image
	CPUs         int         `json:"cpus"`
	Memory       string      `json:"memory"`
	NetworkType  NetworkType `json:"network_type"`
	Agent        bool        `json:"agent"`        // the guest's agent answers, and sets the clock
	MemoryBytes  int64       `json:"memory_bytes"` // of the host's memory; 0 if the daemon has not used it since its start
	DiskBytes    int64       `json:"disk_bytes"`
	CreatedAt    time.Time   `json:"created_at"`   // UTC
	LastUsedAt   *time.Time  `json:"last_used_at"` // UTC; nil if the daemon has not used it since its start
}

// The optional interfaces of drivers that start machines from memory.
type (
	// TemplateLister lists the templates, the oldest first. It may be called at
	// any time.
	TemplateLister interface {
		Templates(ctx context.Context) ([]Template, error)
	}

	// TemplateRemover removes a template. Machines that were started from it go
	// on running, and can be started again. If there is no such template, the
	// error is an *Error of CodeTemplateNotFound.
	TemplateRemover interface {
		RemoveTemplate(ctx context.Context, key string) error
	}
)

// Templates lists the templates, the oldest first. A hypervisor that cannot start
// machines from memory has none.
func (m *Manager) Templates(ctx context.Context) ([]Template, error) {
	d, ok := m.opts.Driver.(TemplateLister)
	if !ok {
		return []Template{}, nil
	}
	return d.Templates(ctx)
}

// RemoveTemplate removes a template. The next machine that needs it boots, and it
// is made again.
func (m *Manager) RemoveTemplate(ctx context.Context, key string) error {
	d, ok := m.opts.Driver.(TemplateRemover)
	if !ok {
		return notSupported(m.opts.Hypervisor, "templates")
	}
	return d.RemoveTemplate(ctx, key)
}

// MemoryText returns a size in MiB as the API shows it, such as "1.0gib".
func MemoryText(mib int) string { return memoryText(mib) }

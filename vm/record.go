package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/google/uuid"
)

// recordVersion is the version of the record's form on disk.
const recordVersion = 1

// record is what the disk knows of a machine: what was asked, and how far it
// has come for good. The phases between Accepted and Ready are not written:
// they belong to the job at work, and a new one finds its place by itself.
type record struct {
	Version   int       `json:"version"`
	ID        string    `json:"id"`
	Spec      spec      `json:"spec"`
	Phase     Phase     `json:"phase"` // Accepted, Ready, Failed or Destroying
	Attempts  int       `json:"attempts"`
	Error     *Error    `json:"error,omitempty"`
	Key       string    `json:"idempotency_key,omitempty"`
	Outbox    *outbox   `json:"outbox,omitempty"`
	Gone      bool      `json:"gone,omitempty"` // a tombstone: only the callback is left
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// outbox is the machine's callback. Body stays as it was when it fell due.
type outbox struct {
	MessageID   string          `json:"message_id"`
	URL         string          `json:"url"`
	State       CallbackState   `json:"state"`
	Body        json.RawMessage `json:"body,omitempty"`
	Attempts    int             `json:"attempts"`
	LastError   string          `json:"last_error,omitempty"`
	DueSince    time.Time       `json:"due_since,omitzero"`
	NextAt      time.Time       `json:"next_at,omitzero"`
	DeliveredAt time.Time       `json:"delivered_at,omitzero"`
}

func newRecord(s spec, key string, now time.Time) *record {
	r := &record{
		Version: recordVersion, ID: uuid.NewString(), Spec: s, Phase: Accepted,
		Attempts: 1, Key: key, CreatedAt: now, UpdatedAt: now,
	}
	if s.CallbackURL != "" {
		r.Outbox = &outbox{MessageID: "msg_" + r.ID, URL: s.CallbackURL, State: CallbackWaiting}
	}
	return r
}

// settled tells whether the machine's making has ended.
func (r *record) settled() bool { return r.Phase != Accepted }

// due tells whether the callback is to be sent.
func (r *record) due() bool { return r.Outbox != nil && r.Outbox.State == CallbackPending }

// store keeps the records: dir/<id>.json.
type store struct{ dir string }

func (s store) path(id string) string { return filepath.Join(s.dir, id+".json") }

// read returns an error that wraps fs.ErrNotExist where there is no record,
// and an *Error of CodeOpen where there is one that cannot be read.
func (s store) read(id string) (*record, error) {
	b, err := os.ReadFile(s.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	r := &record{}
	if err == nil {
		err = json.Unmarshal(b, r)
	}
	if err == nil && r.Version != recordVersion {
		err = fmt.Errorf("its version is %d, and this daemon reads version %d", r.Version, recordVersion)
	}
	if err == nil && r.ID != id {
		err = fmt.Errorf("it is of machine %q", r.ID)
	}
	if err != nil {
		return nil, &Error{
			Code:    CodeOpen,
			Message: fmt.Sprintf("the record %s cannot be read (%v); DELETE /vms/%s removes the machine", s.path(id), err, id),
			Err:     err,
		}
	}
	return r, nil
}

// write puts the record in its place whole or not at all, also when the power
// fails: a temporary file, fsync, rename, fsync of the folder.
func (s store) write(r *record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(s.path(r.ID), b, 0o600); err != nil {
		return fmt.Errorf("writing the record of %s: %w", r.ID, err)
	}
	return s.sync()
}

// remove takes the record away for good. It is a no-op where there is none.
func (s store) remove(id string) error {
	if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the record of %s: %w", id, err)
	}
	return s.sync()
}

func (s store) sync() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", s.dir, err)
	}
	return nil
}

// ids returns the machines that have a record, and the names of folders and
// files that belong to none: what a crash left.
func (s store) ids() (ids, litter []string, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, err
	}
	records := make(map[string]bool)
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok && ValidID(id) && !e.IsDir() {
			records[id] = true
			ids = append(ids, id)
		}
	}
	for _, e := range entries {
		if id := strings.TrimSuffix(e.Name(), ".json"); !records[id] {
			litter = append(litter, e.Name())
		}
	}
	return ids, litter, nil
}

// ValidID tells whether id has the form of a machine's ID: a UUID in canonical
// lower-case form, and so also a harmless file name.
func ValidID(id string) bool {
	u, err := uuid.Parse(id)
	return err == nil && u.String() == id
}

package vm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// recordVersion is the version of the record's form on disk. Version 1 had one
// message, under "outbox", and no expiry.
const recordVersion = 2

// Why a record cannot be used.
var (
	errCorrupt = errors.New("it is corrupt")
	errNewer   = errors.New("a newer osx-builder wrote it")
)

// record is what the disk knows of a machine: what was asked, and how far it
// has come for good. The phases between Accepted and Ready are not written:
// they belong to the job at work, and a new one finds its place by itself.
type record struct {
	Version   int        `json:"version"`
	ID        string     `json:"id"`
	Spec      spec       `json:"spec"`
	Phase     Phase      `json:"phase"` // Accepted, Ready, Failed or Destroying
	Attempts  int        `json:"attempts"`
	Error     *Error     `json:"error,omitempty"`
	Key       string     `json:"idempotency_key,omitempty"`
	RequestID string     `json:"request_id,omitempty"` // of the request that asked for it, for the log
	Expiry    expiry     `json:"expiry,omitzero"`
	Messages  []*message `json:"messages,omitempty"` // to the callback, in the order in which they fell due
	Gone      bool       `json:"gone,omitempty"`     // a tombstone: only messages are left
	CreatedAt time.Time  `json:"created_at"`
	UpdatedAt time.Time  `json:"updated_at"`
}

// message is one document for the machine's callback. Body stays as it was
// when it fell due.
type message struct {
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
	r.announce()
	return r
}

// announce adds a message, of which the body is not known yet. Its ID is
// numbered from the second on.
func (r *record) announce() {
	if r.Spec.CallbackURL == "" {
		return
	}
	id := "msg_" + r.ID
	if n := len(r.Messages); n > 0 {
		id = fmt.Sprintf("%s_%d", id, n+1)
	}
	r.Messages = append(r.Messages, &message{MessageID: id, URL: r.Spec.CallbackURL, State: CallbackWaiting})
}

// settled tells whether the machine's making has ended.
func (r *record) settled() bool { return r.Phase != Accepted }

// next returns the message that is to be sent first, nil where none is due.
func (r *record) next() *message {
	var first *message
	for _, o := range r.Messages {
		if o.State == CallbackPending && (first == nil || o.NextAt.Before(first.NextAt)) {
			first = o
		}
	}
	return first
}

// due tells whether a message is to be sent.
func (r *record) due() bool { return r.next() != nil }

// rewind corrects the times that lie further ahead than they can, which is
// what a clock that was set back leaves. It tells whether there were any.
func (r *record) rewind(now time.Time) (changed bool) {
	for _, o := range r.Messages {
		if o.State == CallbackPending && o.DueSince.After(now) {
			o.DueSince, o.NextAt, changed = now, now, true
		}
	}
	e := r.Expiry.rewound(now)
	changed = changed || e != r.Expiry
	r.Expiry = e
	return changed
}

// decode reads the record of a machine, of this version or an older one.
// Errors wrap errCorrupt or errNewer.
func decode(b []byte, id string) (*record, error) {
	var r struct {
		record
		Outbox *message `json:"outbox"` // of version 1
	}
	err := json.Unmarshal(b, &r)
	version := r.Version
	if err != nil {
		version = versionOf(b) // of a newer one the rest may have another form
	}
	if version > recordVersion {
		return nil, fmt.Errorf("%w: its version is %d, and this one reads versions up to %d", errNewer, version, recordVersion)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if version == 1 && r.Outbox != nil {
		r.Messages = []*message{r.Outbox}
	}
	r.Version = recordVersion
	switch {
	case version < 1:
		return nil, fmt.Errorf("%w: there is no version %d", errCorrupt, version)
	case r.ID != id:
		return nil, fmt.Errorf("%w: it is of machine %.64q", errCorrupt, r.ID)
	case !slices.Contains([]Phase{Accepted, Ready, Failed, Destroying}, r.Phase):
		return nil, fmt.Errorf("%w: its phase is %.64q", errCorrupt, r.Phase)
	case slices.Contains(r.Messages, nil):
		return nil, fmt.Errorf("%w: a message is null", errCorrupt)
	}
	return &r.record, r.plain()
}

// plain takes the record's indents out of the messages' bodies, so that a
// receiver gets the same bytes before and after a restart.
func (r *record) plain() error {
	for _, o := range r.Messages {
		var b bytes.Buffer
		if len(o.Body) == 0 {
			continue
		}
		if err := json.Compact(&b, o.Body); err != nil {
			return fmt.Errorf("%w: a message's body: %w", errCorrupt, err)
		}
		o.Body = b.Bytes()
	}
	return nil
}

// versionOf reads nothing else; 0 is none.
func versionOf(b []byte) int {
	var head struct {
		Version int `json:"version"`
	}
	_ = json.Unmarshal(b, &head) // what cannot be read has none
	return head.Version
}

// ValidID tells whether id has the form of a machine's ID: a UUID in canonical
// lower-case form, and so also a harmless file name.
func ValidID(id string) bool {
	u, err := uuid.Parse(id)
	return err == nil && u.String() == id
}

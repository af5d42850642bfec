package vm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/google/uuid"
)

// recordVersion is the version of the record's format. Version 1 had one message,
// under "outbox", and no expiry.
const recordVersion = 2

// The reasons why a record cannot be used.
var (
	errCorrupt = errors.New("it is corrupt")
	errNewer   = errors.New("a newer osx-builder wrote it")
)

// record is what is on disk about a machine: what was asked for, and what has
// been reached for good. The phases between Accepted and Ready are not written:
// they belong to the running job, and a new job starts over.
type record struct {
	Version   int        `json:"version"`
	ID        string     `json:"id"`
	Spec      spec       `json:"spec"`
	Phase     Phase      `json:"phase"` // Accepted, Ready, Failed or Destroying
	Attempts  int        `json:"attempts"`
	Error     *Error     `json:"error,omitempty"`
	Warnings  Warnings   `json:"warnings,omitempty"` // besides those that the driver keeps
	Owner     string     `json:"owner,omitempty"`    // the name of the token that created it
	Key       string     `json:"idempotency_key,omitempty"`
	RequestID string     `json:"request_id,omitempty"` // of the HTTP request, for the log
	Expiry    expiry     `json:"expiry,omitzero"`
	Messages  []*message `json:"messages,omitempty"` // to the callback, in the order in which they became due
	Gone      bool       `json:"gone,omitempty"`     // a tombstone: only messages are left
	CreatedAt time.Time  `json:"created_at"`
	UpdatedAt time.Time  `json:"updated_at"`
}

// message is one document for the machine's callback. Body stays as it was when
// it became due.
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

func newRecord(id string, s spec, now time.Time) *record {
	r := &record{
		Version: recordVersion, ID: id, Spec: s, Phase: Accepted,
		Attempts: 1, CreatedAt: now, UpdatedAt: now,
	}
	r.addMessage()
	return r
}

// addMessage adds a message whose body is not known yet. Its ID has a number
// from the second on.
func (r *record) addMessage() {
	if r.Spec.CallbackURL == "" {
		return
	}
	id := "msg_" + r.ID
	if n := len(r.Messages); n > 0 {
		id = fmt.Sprintf("%s_%d", id, n+1)
	}
	r.Messages = append(r.Messages, &message{MessageID: id, URL: r.Spec.CallbackURL, State: CallbackWaiting})
}

// key returns the record's Idempotency-Key with its owner.
func (r *record) key() ownedKey { return ownedKey{r.Owner, r.Key} }

// settled reports whether the creation has ended.
func (r *record) settled() bool { return r.Phase != Accepted }

// next returns the due message to send first, nil if none is due.
func (r *record) next() *message {
	var first *message
	for _, msg := range r.Messages {
		if msg.State == CallbackPending && (first == nil || msg.NextAt.Before(first.NextAt)) {
			first = msg
		}
	}
	return first
}

// pending returns the messages that are due.
func (r *record) pending() iter.Seq[*message] {
	return func(yield func(*message) bool) {
		for _, msg := range r.Messages {
			if msg.State == CallbackPending && !yield(msg) {
				return
			}
		}
	}
}

// due reports whether a message is due.
func (r *record) due() bool { return r.next() != nil }

// clampTimes corrects times that are further ahead than they can be, because the
// clock was set back. It reports whether there were any.
func (r *record) clampTimes(now time.Time) (changed bool) {
	for _, msg := range r.Messages {
		if msg.State == CallbackPending && msg.DueSince.After(now) {
			msg.DueSince, msg.NextAt, changed = now, now, true
		}
	}
	e := r.Expiry.clamp(now)
	changed = changed || e != r.Expiry
	r.Expiry = e
	return changed
}

// decode reads the record of a machine in this version or an older one. Its
// errors wrap errCorrupt or errNewer.
func decode(b []byte, id string) (*record, error) {
	var r struct {
		record
		Outbox *message `json:"outbox"` // of version 1
	}
	err := json.Unmarshal(b, &r)
	version := r.Version
	if err != nil {
		version = versionOf(b) // the rest of a newer record may have another format
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
		return nil, fmt.Errorf("%w: it belongs to machine %.64q", errCorrupt, r.ID)
	case !slices.Contains([]Phase{Accepted, Ready, Failed, Destroying}, r.Phase):
		return nil, fmt.Errorf("%w: its phase is %.64q", errCorrupt, r.Phase)
	case slices.Contains(r.Messages, nil):
		return nil, fmt.Errorf("%w: a message is null", errCorrupt)
	}
	return &r.record, r.compactBodies()
}

// compactBodies removes the record's indentation from the messages' bodies, so
// that a receiver gets the same bytes before and after a restart.
func (r *record) compactBodies() error {
	for _, msg := range r.Messages {
		var b bytes.Buffer
		if len(msg.Body) == 0 {
			continue
		}
		if err := json.Compact(&b, msg.Body); err != nil {
			return fmt.Errorf("%w: a message's body: %w", errCorrupt, err)
		}
		msg.Body = b.Bytes()
	}
	return nil
}

// versionOf reads only the version of a record; 0 means that it has none.
func versionOf(b []byte) int {
	var head struct {
		Version int `json:"version"`
	}
	_ = json.Unmarshal(b, &head) // an unreadable record has none
	return head.Version
}

// ValidID reports whether id has the form of a machine's ID: a UUID in canonical
// lower-case form, which is also a safe file name.
func ValidID(id string) bool {
	u, err := uuid.Parse(id)
	return err == nil && u.String() == id
}

package image

import (
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// saveEvery is how often a download's state goes to disk while it runs. A
// killed process costs the next one at most this much of reading, and no byte
// of downloading.
const saveEvery = 10 * time.Second

// origin identifies the bytes that a server was sending, so that a resumed download
// gets more of the same.
type origin struct {
	Source       string `json:"source"`                  // SHA-256 of the URL, which may hold a secret
	ETag         string `json:"etag,omitempty"`          // only a strong one
	LastModified string `json:"last_modified,omitempty"` // as the server wrote it
	Total        int64  `json:"total"`                   // size of the whole, -1 if unknown
}

// partState is the file <type>-<sum>.part.json.
type partState struct {
	Origin origin `json:"origin"`
	Hashed int64  `json:"hashed"` // bytes that Hash has seen; they are on the disk, not only in its cache
	Hash   []byte `json:"hash"`   // encoding.BinaryMarshaler of the hash
}

func sourceID(url string) string {
	id := sha256.Sum256([]byte(url))
	return hex.EncodeToString(id[:])
}

// saver runs at most one save in the background.
type saver struct {
	busy atomic.Bool
	last time.Time
	done sync.WaitGroup
}

func (s *saver) wait() { s.done.Wait() }

// load restores the state that belongs to a file of size bytes and returns how
// many of them the hash has seen. A state that is missing or does not fit
// means none: then the file is simply read.
func (p *part) load(size int64) int64 {
	b, err := os.ReadFile(p.path + ".json")
	if err != nil {
		return 0
	}
	var st partState
	if json.Unmarshal(b, &st) != nil {
		return 0
	}
	p.origin = st.Origin
	if st.Hashed < 0 || st.Hashed > size || len(st.Hash) == 0 {
		return 0
	}
	if p.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(st.Hash) != nil {
		p.hash = p.sum.hash()
		return 0
	}
	return st.Hashed
}

// save writes the state. The bytes that it speaks of are synced first, so that
// a power cut cannot leave a hash of bytes that are not there.
func (p *part) save() error {
	write, err := p.snapshot()
	if err != nil {
		return err
	}
	return write()
}

// saveSoon saves in the background if the last save is long enough ago.
func (p *part) saveSoon() {
	if time.Since(p.saver.last) < saveEvery || !p.saver.busy.CompareAndSwap(false, true) {
		return
	}
	p.saver.last = time.Now()
	write, err := p.snapshot()
	if err != nil {
		p.saver.busy.Store(false)
		return
	}
	p.saver.done.Go(func() {
		defer p.saver.busy.Store(false)
		_ = write() // the next save, or a read of the file, makes up for it
	})
}

// snapshot takes the state as it is now and returns what writes it.
func (p *part) snapshot() (func() error, error) {
	state, err := p.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("saving a download's state: %w", err)
	}
	b, err := json.Marshal(partState{Origin: p.origin, Hashed: p.size, Hash: state})
	if err != nil {
		return nil, fmt.Errorf("saving a download's state: %w", err)
	}
	return func() error {
		if err := p.file.Sync(); err != nil {
			return fmt.Errorf("saving a download: %w", diskError(err))
		}
		if err := replaceFile(p.path+".json", b); err != nil {
			return fmt.Errorf("saving a download's state: %w", diskError(err))
		}
		return nil
	}, nil
}

package image

import "sync"

// meter holds how far an image is, for all who wait for it.
type meter struct {
	mu      sync.Mutex
	now     Progress
	changed chan struct{} // closed when the stage changes
}

func newMeter() *meter {
	return &meter{now: Progress{Stage: Downloading, Total: -1}, changed: make(chan struct{})}
}

func (m *meter) set(stage Stage, bytes, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.now.Stage != stage {
		close(m.changed)
		m.changed = make(chan struct{})
	}
	m.now = Progress{Stage: stage, Bytes: bytes, Total: total}
}

// get returns the progress and a channel that is closed at the next stage.
func (m *meter) get() (Progress, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now, m.changed
}

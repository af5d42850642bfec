package qemu

import "sync"

// taskCounts counts the running tasks of one kind by machine. Its methods may be called concurrently. The zero value is
// ready for use.
type taskCounts struct {
	mu    sync.Mutex
	count map[string]int // by Machine.Dir; guarded by mu
}

// add counts a task of the machine in dir until the returned function is called, once.
func (t *taskCounts) add(dir string) (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count == nil {
		t.count = map[string]int{}
	}
	t.count[dir]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.count[dir]--; t.count[dir] == 0 {
			delete(t.count, dir)
		}
	}
}

// has reports whether a task of the machine in dir is running.
func (t *taskCounts) has(dir string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count[dir] > 0
}

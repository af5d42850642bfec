package e2e

import (
	"runtime"

	"github.com/vishvananda/netns"
)

// Namespace is a network namespace that a test made. It ends once it is closed and
// nothing is in it.
type Namespace struct{ netns.NsHandle }

// NewNamespace makes a network namespace with a loopback device alone and none
// of the host's settings, for which the process needs CAP_SYS_ADMIN. Whoever
// makes it closes it.
func NewNamespace() (Namespace, error) {
	var s Namespace
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		var err error
		if s.NsHandle, err = netns.New(); err == nil {
			err = furnishNetwork()
		}
		made <- err
	}()
	return s, <-made
}

// Do calls f on a thread that is in the namespace.
func (s Namespace) Do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // as above
		if err := netns.Set(s.NsHandle); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

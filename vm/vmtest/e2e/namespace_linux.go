package e2e

import (
	"runtime"

	"github.com/vishvananda/netns"
)

// Namespace is a network namespace of a test. It ends when it is closed and no
// process is left in it.
type Namespace struct{ netns.NsHandle }

// NewNamespace creates a network namespace with only a loopback device and none of
// the host's settings. The process needs CAP_SYS_ADMIN. The caller closes the
// namespace.
func NewNamespace() (Namespace, error) {
	var n Namespace
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked, so that the thread ends with the goroutine
		var err error
		if n.NsHandle, err = netns.New(); err == nil {
			err = initNetwork()
		}
		done <- err
	}()
	err := <-done
	return n, err
}

// Do calls f on a thread in the namespace.
func (n Namespace) Do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // as above
		if err := netns.Set(n.NsHandle); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// The simulator of vCenter has data races of its own.
//go:build !race

package vsphere_test

import (
	"sync"

	"github.com/vmware/govmomi/vim25/types"
)

// failures makes calls of a method fail or hang.
type failures struct {
	mu      sync.Mutex
	method  string
	after   int                   // calls that succeed first
	fault   types.BaseMethodFault // nil means that the call hangs until it is released
	always  bool                  // until all is well again; otherwise once
	failed  bool
	hanging chan struct{}
	other   func(method string) types.BaseMethodFault // if it is set, it is asked instead
}

// set makes one call of the method fail.
func (f *failures) set(method string, after int, fault types.BaseMethodFault) {
	f.recover()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.method, f.after, f.fault, f.always, f.failed, f.hanging = method, after, fault, false, false, make(chan struct{})
}

// setAlways makes all calls of the method fail.
func (f *failures) setAlways(method string, fault types.BaseMethodFault) {
	f.set(method, 0, fault)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.always = true
}

// recover lets all calls succeed, also one that hangs.
func (f *failures) recover() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.method != "" {
		close(f.hanging)
	}
	f.method = ""
}

func (f *failures) hook(method string) types.BaseMethodFault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.other != nil {
		return f.other(method)
	}
	if method != f.method || f.failed && !f.always {
		return nil
	}
	if f.after--; f.after >= 0 {
		return nil
	}
	f.failed = true
	if f.fault == nil {
		hanging := f.hanging
		f.mu.Unlock()
		<-hanging
		f.mu.Lock()
		return nil
	}
	return f.fault
}

func (f *failures) happened() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

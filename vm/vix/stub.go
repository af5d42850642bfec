//go:build !vix || !cgo

package vix

import "osx-builder/vm"

// Supported reports whether this binary can drive VMware.
func Supported() bool { return false }

// Driver drives VMware in binaries with VIX support.
type Driver struct{ vm.Driver }

var errNotBuilt = &vm.Error{
	Code:    vm.CodeHypervisorUnavailable,
	Message: "this program was built without VIX support; build it with make and a C compiler",
}

// Open returns an error, because this binary has no VIX support.
func Open(Options) (*Driver, error) { return nil, errNotBuilt }

// Close does nothing.
func (d *Driver) Close() error { return nil }

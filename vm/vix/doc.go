// Package vix runs machines in VMware Fusion and Workstation, through govix.
//
// The package opens VMware's library at run time (loader.c), so a binary with this package also starts on hosts without
// VMware. It needs cgo and the build tag vix; without them [Open] returns an error, and the package contains nothing
// else.
//
// Package vmware has what it shares with other drivers of VMware: base machines, .vmx files, locks and leases.
//
// A call of VMware's library cannot be interrupted and may never return. Each call runs in a goroutine of its own with
// a deadline. If a call hangs, only other calls for the same machine wait for it.
package vix

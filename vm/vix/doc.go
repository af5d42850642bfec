// Package vix runs machines in VMware Fusion and Workstation, through govix.
//
// The package opens VMware's library at run time (loader.c), so a binary with this package also starts on hosts without
// VMware. It needs cgo and the build tag vix; without them [Open] returns an error, and the package contains nothing
// else.
//
// Machines are linked clones. VIX adds a snapshot to the machine that it clones and writes to its files, but an
// unpacked image must not change. So each image has a base: a machine of this driver that shares the image's disks and
// has the one snapshot that all clones start from.
//
// A call of VMware's library cannot be interrupted and may never return. Each call runs in a goroutine of its own with
// a deadline. If a call hangs, only other calls for the same machine wait for it.
package vix

// Package vix runs machines in VMware Fusion and Workstation, through govix.
//
// VMware's library is opened at run time (loader.c), so a binary that has this
// package starts on hosts without VMware too. It is built with the tag vix and
// cgo; without them Open says so and nothing else is here.
//
// Machines are linked clones. VIX adds a snapshot to the machine that it
// clones, and writes to its files, while an unpacked image is never written
// to. So each image gets a base: a machine of the driver's own that shares the
// image's disks and has the one snapshot that all clones start from.
//
// A call into VMware's library cannot be interrupted and may never return.
// Each runs in a goroutine of its own with a limit on its time; what its
// machine waits for then, other machines do not.
package vix

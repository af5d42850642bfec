//go:build vix && cgo && !windows

package vix

import "io/fs"

// OpenOn is Open on the given operating system.
func OpenOn(goos string, o Options) (*Driver, error) { return openOn(goos, o) }

// LibraryPaths returns where the library is searched on an operating system.
func LibraryPaths(goos string) []string { return libraryPaths(goos) }

// MaxCalls bounds the running calls.
const MaxCalls = maxCalls

// ReadLocks reads the locks in a machine's folder, and returns how many there are.
func ReadLocks(dir fs.FS) (int, error) {
	locks, err := readLocks(dir)
	return len(locks), err
}

//go:build vix && cgo && !windows

package vix

// OpenOn is Open on the given operating system.
func OpenOn(goos string, o Options) (*Driver, error) { return openOn(goos, o) }

// LibraryPaths returns where the library is searched on an operating system.
func LibraryPaths(goos string) []string { return libraryPaths(goos) }

// MaxCalls bounds the running calls.
const MaxCalls = maxCalls

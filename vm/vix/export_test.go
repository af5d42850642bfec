//go:build vix && cgo && !windows

package vix

// OpenOn is Open as it is on a system.
func OpenOn(goos string, o Options) (*Driver, error) { return openOn(goos, o) }

// LibraryPlaces is where the library is looked for on a system.
func LibraryPlaces(goos string) []string { return libraryPlaces(goos) }

// CallsAtOnce is how many calls may be under way.
const CallsAtOnce = callsAtOnce

//go:build vix && cgo && !windows

package vix

// On makes the driver go the ways of another system.
func (o *Options) On(goos string) { o.goos = goos }

// LibraryPlaces is where the library is looked for on a system.
func LibraryPlaces(goos string) []string { return libraryPlaces(goos) }

// CallsAtOnce is how many calls may be under way.
const CallsAtOnce = callsAtOnce

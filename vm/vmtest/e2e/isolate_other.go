//go:build !linux

package e2e

// Isolate returns at once: network namespaces need Linux.
func Isolate() (bool, error) { return false, nil }

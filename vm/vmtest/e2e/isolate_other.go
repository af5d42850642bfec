//go:build !linux

package e2e

import "testing"

// Isolate returns false: namespaces need Linux.
func Isolate() (bool, error) { return false, nil }

// IsolateTest skips the test.
func IsolateTest(t testing.TB) bool {
	t.Helper()
	t.Skip("this test needs namespaces, which only Linux has")
	return false
}

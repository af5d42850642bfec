package vmtest

import (
	"os"
	"syscall"
	"testing"
)

// WriteProgram writes a program that can be started at once. It waits until no other process is
// being started, and keeps others from it: such a process has this one's files open for a moment,
// and Linux does not run a program that is open for writing ("text file busy").
func WriteProgram(t testing.TB, path, text string) {
	t.Helper()
	syscall.ForkLock.RLock()
	err := os.WriteFile(path, []byte(text), 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
}

package harness

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"osx-builder/vm/vmtest/e2e"
)

// Hurry gives the QEMUs of a data folder this process's priority. The guest of a template boots with a low one: beside
// other tests it would take ten times as long.
func Hurry(data string) {
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return
	}
	names, _ := filepath.Glob("/proc/[0-9]*/comm") // processes may end meanwhile
	for _, name := range names {
		process := filepath.Dir(name)
		if comm, err := os.ReadFile(name); err != nil || !strings.HasPrefix(string(comm), "qemu") || !e2e.HasOpen(process, data) {
			continue
		}
		threads, _ := filepath.Glob(process + "/task/*")
		for _, t := range threads {
			if id, err := strconv.Atoi(filepath.Base(t)); err == nil {
				_ = unix.Setpriority(unix.PRIO_PROCESS, id, 20-own) // the system call returns 20 minus the priority
			}
		}
	}
}

package harness

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

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
	for _, pid := range qemus(data) {
		threads, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*")
		for _, t := range threads {
			if id, err := strconv.Atoi(filepath.Base(t)); err == nil {
				_ = unix.Setpriority(unix.PRIO_PROCESS, id, 20-own) // the system call returns 20 minus the priority
			}
		}
	}
}

// StandStill stops the daemon and its QEMUs for d, as if the whole host stood still.
func (h *Harness) StandStill(d time.Duration) {
	all := append(qemus(h.Data), h.PID())
	for _, pid := range all {
		_ = syscall.Kill(pid, syscall.SIGSTOP) // a QEMU may end meanwhile
	}
	time.Sleep(d)
	for _, pid := range all {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

// qemus returns the QEMU processes of a data folder.
func qemus(data string) (pids []int) {
	names, _ := filepath.Glob("/proc/[0-9]*/comm") // processes may end meanwhile
	for _, name := range names {
		process := filepath.Dir(name)
		if comm, err := os.ReadFile(name); err != nil || !strings.HasPrefix(string(comm), "qemu") || !e2e.HasOpen(process, data) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(process)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

package qemu

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lowPriority is that of a process which gets a tenth of the processor time of
// others, so that it is ready some day on a host that is always busy.
const lowPriority = 10

// lowerPriority gives all threads of a process a low priority. The threads
// that they start later inherit it.
func lowerPriority(pid int) error {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, id, lowPriority); err != nil && !errors.Is(err, unix.ESRCH) {
			return os.NewSyscallError("setpriority", err)
		}
	}
	return nil
}

// demand returns the processor time that a process has used or waited for, or 0 if
// it is not known. A process that a busy host lets wait is not idle.
func demand(pid int) (sum time.Duration) {
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)) // one that has ended needs nothing
	for _, t := range threads {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, t.Name()))
		if err != nil {
			continue
		}
		var used, waited time.Duration // in nanoseconds
		if _, err := fmt.Sscan(string(text), &used, &waited); err == nil {
			sum += used + waited
		}
	}
	return sum
}

// freeMemory returns how many MiB of the host's memory new programs can use, or 0
// if that is not known.
func freeMemory() int {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "MemAvailable:"); ok {
			kib, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(rest, "kB")))
			return kib >> 10
		}
	}
	return 0
}

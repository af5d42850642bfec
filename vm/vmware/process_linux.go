package vmware

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// startTimesDiffer reports whether a start time that is not that of the lock proves that the process is another one.
const startTimesDiffer = true

// processStart reports whether the process runs or may run, and returns its start time in the unit that VMware's locks
// use, here in ticks since the host started. It is 0 if it is unknown.
func processStart(pid int) (start uint64, runs bool) {
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return 0, false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, true
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // from the third one
	if len(fields) < 20 {
		return 0, true
	}
	start, _ = strconv.ParseUint(string(fields[19]), 10, 64)
	return start, true
}

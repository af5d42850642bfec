package vmware

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// startTimesDiffer reports whether a start time that is not that of the lock proves that the process is another one.
const startTimesDiffer = true

// processStart reports whether the process runs or may run, and returns its start time in the unit that VMware's locks
// use, here in microseconds since 1970. It is 0 if it is unknown.
func processStart(pid int) (start uint64, runs bool) {
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return 0, false
	}
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil || info.Proc.P_starttime.Sec <= 0 {
		return 0, true
	}
	return uint64(info.Proc.P_starttime.Sec)*1_000_000 + uint64(info.Proc.P_starttime.Usec), true
}

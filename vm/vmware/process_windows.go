package vmware

import (
	"errors"

	"golang.org/x/sys/windows"
)

// startTimesDiffer reports whether a start time that is not that of the lock proves that the process is another one. It
// is not documented in which unit locks have it on Windows, so only the same time proves anything.
const startTimesDiffer = false

// stillActive is the exit code of a process that runs.
const stillActive = 259

// processStart reports whether the process runs or may run, and returns its start time in units of 100 ns since 1601.
// It is 0 if it is unknown.
func processStart(pid int) (start uint64, runs bool) {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid)) // #nosec G115
	if err != nil {
		return 0, !errors.Is(err, windows.ERROR_INVALID_PARAMETER) // that is the answer if there is no such process
	}
	defer windows.CloseHandle(h)
	var code uint32
	if err := windows.GetExitCodeProcess(h, &code); err == nil && code != stillActive {
		return 0, false
	}
	var created, exited, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(h, &created, &exited, &kernel, &user); err != nil {
		return 0, true
	}
	return uint64(created.HighDateTime)<<32 | uint64(created.LowDateTime), true
}

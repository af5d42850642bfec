//go:build !windows

package server

import (
	"math"
	"syscall"
)

// minReservedFiles is the least number of files that stay available for everything but clients' connections: disks,
// downloads, logs and connections to hypervisors.
const minReservedFiles = 32

// maxConnections returns how many connections this process can have at once, according to its limit of open files
// (RLIMIT_NOFILE). A quarter of the files is reserved for other uses. The Go runtime has already raised the soft limit
// to the hard one.
func maxConnections() (n int, openFiles uint64) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt, math.MaxUint64
	}
	openFiles = uint64(limit.Cur)
	available := openFiles - min(openFiles, max(openFiles/4, minReservedFiles))
	return int(max(1, min(available, math.MaxInt))), openFiles
}

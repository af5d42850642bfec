package vmware

import "io/fs"

// ReadLocks reads the locks in a machine's folder, and returns how many there are.
func ReadLocks(dir fs.FS) (int, error) {
	locks, err := readLocks(dir)
	return len(locks), err
}

// ProcessStart returns the start time of a process of this host.
func ProcessStart(pid int) (uint64, bool) { return processStart(pid) }

package vmware

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// enteringTimeout is how long VMware waits for a process that takes a lock, before it takes the process for dead.
const enteringTimeout = 8 * time.Second

// claimSize is the size in bytes of a claim's file. VMware fills it with zeros.
const claimSize = 512

const (
	unknownProcess  = "an unknown process"
	enteringProcess = "a process that takes the lock"
)

var (
	claimFile    = regexp.MustCompile(`^M[0-9]{5}\.lck$`)
	enteringFile = regexp.MustCompile(`^[DE][0-9]{5}\.lck$`)
)

// claim is a process's claim to a lock.
type claim struct {
	host  string // VMware's ID of the host that the process runs on
	pid   int
	start uint64 // the process's start time in a unit of the system, or 0 if it is unknown
}

// fileLock is a folder X.lck with which VMware's processes lock the file X.
//
// It contains a file M#####.lck for each process that holds or waits for the lock. While a process takes the lock, it
// also has a folder D#####.lck and a file E#####.lck there, which say nothing about the process. Files of other names
// are no part of a lock, and VMware removes them (open-vm-tools, lib/file/fileLockPrimitive.c and fileLockPosix.c).
type fileLock struct {
	name   string // of the folder
	claims []claim
	holder string // a process that runs, or may run, and whose claim is not understood; "" if there is none
}

// readLocks returns the locks in a machine's folder. An error never means that there is no lock.
func readLocks(dir fs.FS) ([]fileLock, error) {
	entries, err := fs.ReadDir(dir, ".")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var locks []fileLock
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".lck") {
			continue
		}
		lock, err := readLock(dir, e)
		if err != nil {
			return nil, err
		}
		locks = append(locks, lock)
	}
	return locks, nil
}

// readLock reads one lock. A lock that it does not understand counts as held.
func readLock(dir fs.FS, e fs.DirEntry) (fileLock, error) {
	lock := fileLock{name: e.Name()}
	if !e.IsDir() {
		lock.holder = unknownProcess // an old form of lock
		return lock, nil
	}
	members, err := fs.ReadDir(dir, lock.name)
	if errors.Is(err, fs.ErrNotExist) {
		return lock, nil
	}
	if err != nil {
		return lock, err
	}
	for _, m := range members {
		switch {
		case claimFile.MatchString(m.Name()):
			data, err := fs.ReadFile(dir, path.Join(lock.name, m.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return lock, err
			}
			if c, ok := parseClaim(data); ok {
				lock.claims = append(lock.claims, c)
			} else if isComplete(data) {
				lock.holder = unknownProcess
			} else if isRecent(m) {
				lock.holder = enteringProcess
			}
		case enteringFile.MatchString(m.Name()):
			if isRecent(m) {
				lock.holder = enteringProcess
			}
		}
	}
	return lock, nil
}

// isRecent reports whether a file of a lock is so new that the process that wrote it may still be taking the lock.
func isRecent(e fs.DirEntry) bool {
	info, err := e.Info()
	return err == nil && time.Since(info.ModTime()) < enteringTimeout
}

// isComplete reports whether a claim was written as a whole. A process that is killed while it writes the claim leaves
// it short, and a host that crashes can leave it empty or full of zeros. VMware removes such a claim.
func isComplete(data []byte) bool {
	return len(data) >= claimSize && len(bytes.TrimLeft(data, "\x00")) > 0
}

// parseClaim reads a claim. It has at least four fields: the host, the process, a number, and S or X. The process is its
// ID and, after a dash, its start time; the process's name may follow in parentheses.
func parseClaim(data []byte) (c claim, ok bool) {
	fields := bytes.Fields(bytes.TrimRight(data, "\x00"))
	if len(fields) < 4 {
		return c, false
	}
	process, _, _ := strings.Cut(string(fields[1]), "(")
	number, start, hasStart := strings.Cut(process, "-")
	pid, err := strconv.Atoi(number)
	if err != nil || pid <= 0 {
		return c, false
	}
	c = claim{host: string(fields[0]), pid: pid}
	if hasStart {
		if c.start, err = strconv.ParseUint(start, 10, 64); err != nil {
			return c, false
		}
	}
	return c, true
}

// isHere reports whether a process of this host fits the claim. sure reports whether no other process does.
func (c claim) isHere() (runs, sure bool) {
	start, runs := processStart(c.pid)
	if !runs {
		return false, false
	}
	if c.start == 0 || start == 0 || c.start != start && !startTimesDiffer {
		return true, false
	}
	return c.start == start, c.start == start
}

func (c claim) String() string { return fmt.Sprintf("process %d of the host %s", c.pid, c.host) }

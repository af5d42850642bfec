package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// process is a process of this host. The descriptor stands for that one
// process, even if another one gets its number later.
type process struct{ fd int }

// findProcesses returns the processes that were started with the argument arg.
// The caller closes them.
func findProcesses(arg string) ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !startedWith(pid, arg) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it ended in between
		}
		if !startedWith(pid, arg) { // and another took its number
			unix.Close(fd)
			continue
		}
		found = append(found, process{fd})
	}
	return found, nil
}

// startedWith reports whether arg is one of the arguments of the process pid.
// One that has ended has none.
func startedWith(pid int, arg string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	for a := range bytes.SplitSeq(b, []byte{0}) {
		if string(a) == arg {
			return true
		}
	}
	return false
}

func closeAll(ps []process) {
	for _, p := range ps {
		unix.Close(p.fd)
	}
}

// signal sends s to every process of ps that still runs.
func signal(ps []process, s unix.Signal) error {
	for _, p := range ps {
		err := unix.PidfdSendSignal(p.fd, s, nil, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// ended waits at most patience for every process of ps to end.
func ended(ctx context.Context, ps []process, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, p := range ps {
		for {
			// A short wait at a time, as poll does not know of contexts.
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, 50)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
			if n > 0 {
				break
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}

// stopProcesses ends what was started with arg: politely, then by force.
func stopProcesses(ctx context.Context, arg string) error {
	const patience = time.Second
	ps, err := findProcesses(arg)
	if err != nil {
		return err
	}
	defer closeAll(ps)
	if err := signal(ps, unix.SIGTERM); err != nil {
		return err
	}
	err = ended(ctx, ps, patience)
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return err
	}
	if err := signal(ps, unix.SIGKILL); err != nil {
		return err
	}
	return ended(ctx, ps, patience)
}

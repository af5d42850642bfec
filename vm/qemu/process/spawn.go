package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"osx-builder/vm/qemu/confine"
)

// spawnTimeout bounds the start of a shell, which takes milliseconds. It is long,
// because a shell that is cut short leaves open whether there is a process.
const spawnTimeout = 10 * time.Second

// supervisor is a script that starts QEMU. QEMU is not a child of the daemon, so it outlives the daemon, which need not
// reap it. (QEMU's own -daemonize needs system calls that QEMU's sandbox forbids.) A shell waits for QEMU and writes its
// exit status to descriptor 4. Descriptor 3 is closed when both have ended; 5 gets QEMU's standard error. QEMU keeps
// descriptor 6, whose lock says that it runs; 7 gets its number and its session. %s is QEMU's command line. QEMU ignores
// the signal that says that a file is too long: a guest's console can become so, and then the rest of it is lost.
const supervisor = `{
trap '' XFSZ
%s </dev/null >/dev/null 2>&5 4>&- 5>&- 7>&- &
echo $! $$ >&7
exec 6>&- 7>&-
trap '' HUP INT TERM
wait $!
echo $? >&4
} >/dev/null 2>&1 &
`

// firstFile is the descriptor of QEMU's first file.
const firstFile = 8

// Command is a QEMU to start.
type Command struct {
	Dir   string        // the machine's folder
	Argv  []string      // the program's absolute path, and its arguments
	Env   []string      // all of QEMU's environment, as in NAME=value
	Files *Files        // what QEMU finds open; the caller closes them
	Rules confine.Rules // what QEMU may do

	// Beside are programs that start before QEMU, and that end by themselves once QEMU has ended, because a socket or a
	// pipe that they share with it is closed.
	Beside map[Beside]Command
}

// Close closes the daemon's copies of the files, and the control group.
func (c Command) Close() error {
	errs := []error{c.Files.Close()}
	if c.Rules.ControlGroup != nil {
		errs = append(errs, c.Rules.ControlGroup.Close()) // the programs beside QEMU have the same
	}
	for _, beside := range c.Beside {
		errs = append(errs, beside.Files.Close())
	}
	return errors.Join(errs...)
}

// Spawn starts QEMU in c.Dir, in a session of its own. w stays open until QEMU has ended and its exit status is written
// down. Call [AwaitSupervisor] before, because the shell of an earlier QEMU has that QEMU's files open too.
func Spawn(c Command, w *os.File) error {
	defer w.Close()
	for name, beside := range c.Beside {
		if err := name.spawn(context.Background(), beside); err != nil {
			return err
		}
	}
	exit, err := newExitFile(c.Dir)
	if err != nil {
		return err
	}
	defer exit.Close()
	log, err := CreateOwned(filepath.Join(c.Dir, LogFile), os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return fmt.Errorf("creating QEMU's log: %w", err)
	}
	defer log.Close()
	held, number, err := newPIDFile(filepath.Join(c.Dir, PIDFile))
	if err != nil {
		return fmt.Errorf("creating QEMU's pid file: %w", err)
	}
	defer held.Close()
	defer number.Close()
	return c.runShell(context.Background(), "QEMU", supervisor, append(c.Argv, pidArguments()...), w, exit, log, held, number)
}

// runShell runs a shell that starts a program and leaves it behind. The script's %s is the program's command line. The
// shell finds these files open, from descriptor 3 on, and then c.Files. name is the program's in errors.
func (c Command) runShell(ctx context.Context, name, script string, argv []string, files ...*os.File) error {
	ctx, cancel := context.WithTimeout(ctx, spawnTimeout)
	defer cancel()
	var stderr bytes.Buffer
	cmd := confine.Script(ctx, c.Rules, fmt.Sprintf(script, confine.Quote(argv)), nil, c.Env, append(files, c.Files.files...)...)
	cmd.Dir = c.Dir
	cmd.Stderr = &stderr
	err := confine.Run(cmd, c.Rules)
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // the shell has ended well; on a busy host, what it started may keep its standard error open for a while
	}
	var ended *exec.ExitError
	if err == nil || errors.As(err, &ended) && ended.ExitCode() < 0 && ctx.Err() == nil {
		return nil // if somebody killed the shell, the program may have started or not, as its pid file says
	}
	return fmt.Errorf("starting %s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
}

// newPIDFile creates a pid file at path. held is open for reading, with a lock on Linux that lasts until everybody has
// closed it; number is open for writing. So a QEMU that a guest took over cannot change the number.
func newPIDFile(path string) (held, number *os.File, err error) {
	if number, err = CreateOwned(path, os.O_WRONLY); err != nil {
		return nil, nil, err
	}
	held, err = OpenOwned(path, os.O_RDONLY)
	if err == nil {
		if err = lockPIDFile(held); err == nil {
			return held, number, nil
		}
		held.Close()
	}
	return nil, nil, errors.Join(err, number.Close())
}

// HasEnded waits a few milliseconds and reports whether the process has ended.
// ended is the reading end of the pipe that [Spawn] got.
func HasEnded(ended *os.File) (bool, error) {
	if err := ended.SetReadDeadline(time.Now().Add(pollInterval)); err != nil {
		return false, err
	}
	_, err := ended.Read(make([]byte, 1))
	switch {
	case errors.Is(err, io.EOF):
		return true, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil
	default:
		return false, err
	}
}

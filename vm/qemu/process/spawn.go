package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// spawnTimeout bounds the start of a shell, which takes milliseconds. It is long,
// because a shell that is cut short leaves open whether there is a process.
const spawnTimeout = 10 * time.Second

// launcher is a script that starts QEMU. QEMU is not a child of the daemon, so it
// outlives the daemon, which need not reap it. (QEMU's own -daemonize needs
// system calls that QEMU's sandbox forbids.) A shell waits for QEMU and writes
// its exit status to descriptor 4. Descriptor 3 is closed when both have ended.
// %s is QEMU's command line. The shell reads the script from its standard input,
// so that only QEMU has the machine's command line.
const launcher = `{
%s </dev/null >/dev/null 2>` + LogFile + ` 4>&- &
trap '' HUP INT TERM
wait $!
echo $? >&4
} >/dev/null 2>&1 &
`

// Spawn runs argv in dir, in a session of its own. w stays open until the process
// has ended and its exit status is written down.
func Spawn(dir string, argv []string, w *os.File) error {
	defer w.Close()
	exit, err := newExitFile(dir)
	if err != nil {
		return err
	}
	defer exit.Close()
	ctx, cancel := context.WithTimeout(context.Background(), spawnTimeout)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "/bin/sh", "-s")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(launcher, shellWords(argv)))
	cmd.Dir = dir
	cmd.Stderr = &stderr
	cmd.ExtraFiles = []*os.File{w, exit}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = time.Second
	if err := WithoutAmbient(cmd.Run); err != nil {
		return fmt.Errorf("starting QEMU: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// shellWords quotes a command line for a shell.
func shellWords(argv []string) string {
	var words []string
	for _, a := range argv {
		words = append(words, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	return strings.Join(words, " ")
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

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Beside names a program that runs beside a QEMU.
type Beside string

// The programs that may run beside a QEMU.
const (
	TPM     Beside = "tpm"     // emulates the machine's TPM
	Trimmer Beside = "trimmer" // bounds the machine's console
)

// pidFile is the name of the file in a machine's folder that is locked while the program runs.
func (b Beside) pidFile() string { return string(b) + ".pid" }

// LogFile is the name of the file in a machine's folder that has the program's standard error since its last start.
func (b Beside) LogFile() string { return string(b) + ".log" }

// besideGrace is how long the programs beside a QEMU that has ended may take to end by themselves, which they do once
// they have written their last block.
const besideGrace = 2 * time.Second

// background is a script that starts a program which is not a child of the daemon either. The program keeps descriptor
// 6, whose lock says that it runs; 7 gets its number and its session; 5 gets its standard error. %s is its command line.
const background = `%s </dev/null >/dev/null 2>&5 3>&- 4>&- 5>&- 7>&- &
echo $! $$ >&7
`

// spawn starts the program, and ends an earlier one first.
func (b Beside) spawn(ctx context.Context, c Command) error {
	if err := b.end(ctx, c.Dir); err != nil {
		return err
	}
	log, err := CreateOwned(filepath.Join(c.Dir, b.LogFile()), os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return fmt.Errorf("creating the log of %s: %w", c.Argv[0], err)
	}
	defer log.Close()
	held, number, err := newPIDFile(filepath.Join(c.Dir, b.pidFile()))
	if err != nil {
		return fmt.Errorf("creating the pid file of %s: %w", c.Argv[0], err)
	}
	defer held.Close()
	defer number.Close()
	return c.runShell(ctx, c.Argv[0], background, c.Argv, log, log, log, held, number) // as in Spawn, so that c.Files are the same
}

// Runs reports whether the program runs for the machine in dir. On macOS it is not known, and the result is false.
func (b Beside) Runs(dir string) bool {
	pid, err := b.holder(dir)
	return err == nil && pid != 0
}

func (b Beside) holder(dir string) (int, error) {
	return holder(filepath.Join(dir, b.pidFile()), func() int { return 0 })
}

// EndBeside returns once the programs beside a QEMU that has ended are gone too. It kills one that does not end by
// itself. It is a no-op if there is none.
func EndBeside(ctx context.Context, dir string) error {
	return errors.Join(TPM.end(ctx, dir), Trimmer.end(ctx, dir))
}

func (b Beside) end(ctx context.Context, dir string) error {
	pid, err := b.holder(dir)
	if err != nil || pid == 0 {
		return err
	}
	alive := func() bool {
		now, err := b.holder(dir)
		return err == nil && now == pid
	}
	gone := func() bool { return !alive() }
	what := fmt.Sprintf("the end of the machine's %s, process %d", b, pid)
	grace, cancel := context.WithTimeout(ctx, besideGrace)
	defer cancel()
	if Wait(grace, what, gone) == nil {
		return nil
	}
	if err := kill(pid, alive); err != nil {
		return fmt.Errorf("ending the machine's %s, process %d: %w", b, pid, err)
	}
	ctx, cancel = context.WithTimeout(ctx, KillTimeout)
	defer cancel()
	return Wait(ctx, what, gone)
}

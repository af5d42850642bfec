package client

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
)

// execute runs the program at path in place of this process: with its terminal, to which Ctrl-C belongs, and with its
// exit code. It returns only if the program cannot be run.
func execute(path string, args []string) error {
	signal.Ignore(os.Interrupt)
	cmd := exec.Command(path)
	cmd.Args = args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return err
	}
	os.Exit(cmd.ProcessState.ExitCode())
	return nil
}

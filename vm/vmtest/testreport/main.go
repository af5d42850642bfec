// Command testreport runs go test and shows its results. It prints the complete
// output of each test that fails as soon as the test ends, and the line of each
// package as soon as the package ends. At the end it prints the slowest tests of all
// packages, one line for each package, and the messages of the tests that failed.
//
// Its arguments are commands that print what go test -json does, with a
// separate -- between two of them:
//
//	testreport go test -json -tags vix ./vm/vix -- go test -json ./...
//
// The commands run at once, all of them even if one fails. The exit status is that
// of the first in their order that failed.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync"
	"syscall"
)

func main() {
	// An interrupt reaches go test as well, since both are in the foreground.
	// The report waits for it and then shows what was finished.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the commands, prints the report and returns the exit status.
func run(ctx context.Context, args []string, stdout io.Writer, stderr *os.File) (status int) {
	if len(args) == 0 {
		fmt.Fprintln(stderr, "usage: testreport go test -json [FLAGS] PACKAGES... [-- go test -json ...]")
		return 2
	}
	r := newReport(stdout)
	commands := slices.Collect(split(args))
	statuses := make([]int, len(commands))
	var group sync.WaitGroup
	for i, command := range commands {
		group.Go(func() { statuses[i] = runOne(ctx, command, r, stderr) })
	}
	group.Wait()
	for _, s := range statuses {
		status = cmp.Or(status, s)
	}
	r.summarize()
	if status == 0 && r.anyFailed() {
		return 1
	}
	return status
}

// split yields the commands that -- separates.
func split(args []string) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for len(args) > 0 {
			command := args
			if i := slices.Index(args, "--"); i >= 0 {
				command, args = args[:i], args[i+1:]
			} else {
				args = nil
			}
			if len(command) > 0 && !yield(command) {
				return
			}
		}
	}
}

// runOne runs one command, adds its events to the report and returns its exit
// status.
func runOne(ctx context.Context, command []string, r *report, stderr *os.File) int {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(stderr, "testreport:", err)
		return 1
	}
	r.read(out)
	err = cmd.Wait()
	exit := new(exec.ExitError)
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintf(stderr, "testreport: %v: %v\n", cmd, err)
		return 1
	}
	return 0
}

package vmrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

const (
	// maxCalls bounds the processes of vmrun. VMware answers slowly if many of them connect at once.
	maxCalls = 8

	// maxOutput bounds what is kept of the output of a call, in bytes. A list of a thousand machines is shorter.
	maxOutput = 1 << 20

	// killedTimeout bounds the wait for a killed process to end.
	killedTimeout = 2 * time.Second
)

// command calls vmrun.
type command struct {
	program   string
	deadlines vmware.Deadlines
	calls     chan struct{} // a semaphore with an item for each running process
}

// find returns the path of vmrun.
func find(program string) (string, error) {
	if program != "" {
		if _, err := os.Stat(program); err != nil {
			return "", unavailable("%v; set -vmrun to the path of VMware's vmrun", err)
		}
		return program, nil
	}
	paths := programPaths()
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath("vmrun"); err == nil {
		return path, nil
	}
	return "", unavailable("VMware's command vmrun is neither in PATH nor one of %s; install VMware Fusion or Workstation, or set -vmrun",
		strings.Join(paths, ", "))
}

func unavailable(format string, args ...any) error {
	return &vm.Error{Code: vm.CodeHypervisorUnavailable, Message: fmt.Sprintf(format, args...)}
}

// product is vmrun's name of the VMware product of this system.
func product() string {
	if runtime.GOOS == "darwin" {
		return "fusion"
	}
	return "ws"
}

// call runs vmrun with these arguments, waits at most limit, and returns what vmrun prints. step says what it does, in
// the form "clone the image".
func (c *command) call(ctx context.Context, step string, limit time.Duration, args ...string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("not asking VMware to %s: %w", step, err)
	}
	end := time.Now().Add(limit)
	limited, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	select {
	case c.calls <- struct{}{}:
	case <-limited.Done():
		return "", c.interrupted(ctx, step, limit)
	}
	defer func() { <-c.calls }()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		out, err := c.run(limited, args)
		if limited.Err() != nil {
			return "", c.interrupted(ctx, step, limit)
		}
		if !vmware.IsCode(err, vmware.CodeBusy) {
			return out, vmware.Explain(step, err, args[1:])
		}
		select {
		case <-time.After(pause): // VMware asks to try again
		case <-limited.Done():
			return out, vmware.Explain(step, err, args[1:])
		}
	}
}

// interrupted is the error of a call that did not end in time.
func (c *command) interrupted(ctx context.Context, step string, limit time.Duration) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("waiting for VMware to %s: %w", step, err)
	}
	return &vm.Error{
		Code:    vm.CodeHypervisor,
		Message: fmt.Sprintf("vmrun did not %s within %v, and was ended; VMware may wait for an answer in a dialog, or hang", step, limit),
		Err:     context.DeadlineExceeded,
	}
}

// run runs vmrun once. When ctx ends, vmrun is killed with all its processes.
func (c *command) run(ctx context.Context, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, c.program, append([]string{"-T", product()}, args...)...)
	out := &boundedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = killedTimeout
	ownGroup(cmd)
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // vmrun succeeded; a process that it started, such as the machine's, still has its output open
	}
	text := out.String()
	if _, exited := errors.AsType[*exec.ExitError](err); exited {
		return "", failure(text)
	}
	if err != nil {
		return "", unavailable("VMware's command cannot be used: %v", err)
	}
	return text, nil
}

// boundedBuffer keeps the first maxOutput bytes that are written to it.
type boundedBuffer struct{ b bytes.Buffer }

func (b *boundedBuffer) Write(p []byte) (int, error) {
	b.b.Write(p[:min(len(p), maxOutput-b.b.Len())])
	return len(p), nil
}

func (b *boundedBuffer) String() string { return b.b.String() }

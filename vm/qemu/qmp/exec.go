package qmp

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

const (
	// execTimeout bounds one request of Run. A request that starts a program must not be given up early: nobody knows
	// then whether the program runs.
	execTimeout = 30 * time.Second

	// execLook is how often Run asks whether the program has ended.
	execLook = 100 * time.Millisecond
)

// Exec is a program for a guest's agent to run.
type Exec struct {
	Path  string
	Args  []string
	Input []byte // for its standard input
}

// Result is how a program ended that a guest's agent has run.
type Result struct {
	Code   int // exit code; -1 if a signal ended it
	Output []byte
	Errors []byte
}

// Run runs the program in the guest and waits for its end. If ctx ends first, the program goes on.
func (a *Agents) Run(ctx context.Context, socket string, e Exec) (Result, error) {
	arguments := map[string]any{"path": e.Path, "arg": e.Args, "capture-output": true}
	if len(e.Input) > 0 {
		arguments["input-data"] = e.Input
	}
	start, err := json.Marshal(map[string]any{"execute": "guest-exec", "arguments": arguments})
	if err != nil {
		return Result{}, err
	}
	var program struct{ PID int64 }
	if err := a.askPatiently(ctx, socket, string(start), &program); err != nil {
		return Result{}, fmt.Errorf("running %s in the guest: %w", e.Path, err)
	}
	tick := time.NewTicker(execLook)
	defer tick.Stop()
	for {
		var status struct {
			Exited   bool
			ExitCode *int
			OutData  []byte `json:"out-data"`
			ErrData  []byte `json:"err-data"`
		}
		request := fmt.Sprintf(`{"execute":"guest-exec-status","arguments":{"pid":%d}}`, program.PID)
		if err := a.askPatiently(ctx, socket, request, &status); err != nil {
			return Result{}, fmt.Errorf("waiting for %s in the guest: %w", e.Path, err)
		}
		if status.Exited {
			r := Result{Code: -1, Output: status.OutData, Errors: status.ErrData}
			if status.ExitCode != nil {
				r.Code = *status.ExitCode
			}
			return r, nil
		}
		select {
		case <-ctx.Done():
			return Result{}, fmt.Errorf("waiting for %s in the guest: %w", e.Path, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// askPatiently asks an agent that may be slow, because its host or its guest is busy.
func (a *Agents) askPatiently(ctx context.Context, socket, request string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, execTimeout)
	defer cancel()
	return a.ask(ctx, socket, request, out)
}

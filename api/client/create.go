package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// createOptions are the flags of create.
type createOptions struct {
	requestOptions
	key     string
	wait    bool
	timeout time.Duration
	cancel  bool
}

func newCreateCommand(c *cli) *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:   "create {FILE | --image URL --checksum SUM}",
		Short: "Create a machine, and print it",
		Example: "  osx-builder create vm.json --wait\n" +
			"  osx-builder create --image https://example.com/debian.tar.gz \\\n    --checksum auto --name web --wait",
		Args: func(_ *cobra.Command, args []string) error { return o.setFile(args) },
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, _ []string) error { return o.run(ctx, c, daemon) }),
	}
	o.addFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.key, "idempotency-key", "", "a key of your choice: the same key and request return the same machine")
	f.BoolVar(&o.wait, "wait", false, "wait until the machine is ready")
	addTimeoutFlag(cmd, &o.timeout, defaultTimeout)
	f.BoolVar(&o.cancel, "cancel-on-interrupt", false, "with --wait: destroy the machine on Ctrl-C or SIGTERM")
	return c.withFieldFlag(cmd)
}

func (o *createOptions) run(ctx context.Context, c *cli, daemon *apiClient) error {
	if o.cancel && !o.wait {
		return usageError("--cancel-on-interrupt needs --wait")
	}
	if err := c.checkField(ctx, daemon); err != nil {
		return err
	}
	started := time.Now()
	body, err := o.body(ctx, c, daemon)
	if err != nil {
		return err
	}
	header := make(http.Header)
	if o.key != "" {
		header.Set("Idempotency-Key", o.key)
	}
	// Ctrl-C does not interrupt this request, because its answer contains the id of the new machine. A second Ctrl-C
	// ends the process.
	document, err := daemon.do(context.WithoutCancel(ctx), http.MethodPost, "/vms", body, header)
	if err != nil {
		return o.nameFlags(err)
	}
	m, err := parseMachine(document)
	if err != nil {
		return errors.Join(err, c.printDocument(document))
	}
	if !o.wait {
		return c.printMachine(m, 0)
	}
	if !c.forPeople() || ctx.Err() != nil {
		c.infof("machine %s accepted", c.label(m))
	}
	m, err = waitFor(ctx, c, daemon, m, goalReady, o.timeout)
	return o.finish(ctx, c, daemon, m, err, time.Since(started))
}

// finish prints the machine at the end of a wait. After an error the last line says what to do with the machine, which
// exists in any case.
func (o *createOptions) finish(ctx context.Context, c *cli, daemon *apiClient, m machine, err error, took time.Duration) error {
	if err == nil {
		return c.printMachine(m, took)
	}
	if !c.forPeople() {
		err = errors.Join(err, c.printDocument(m.document))
	}
	var timeout *exitError
	switch {
	case ctx.Err() != nil && o.cancel:
		c.infof("destroying machine %s; press Ctrl-C again to keep it", c.label(m))
		if err := daemon.destroyVM(context.WithoutCancel(ctx), m.ID); err != nil {
			return fmt.Errorf("destroying machine %s: %w", c.label(m), err)
		}
		return fmt.Errorf("interrupted; machine %s destroyed", c.label(m))
	case ctx.Err() != nil:
		return errors.New("interrupted; " + c.stillExists(m))
	case errors.As(err, &timeout) && timeout.code == exitFailed:
		return err // it names the machine
	default:
		return errors.Join(err, errors.New(c.stillExists(m)))
	}
}

// stillExists says what to do with a machine for which the command does not wait any longer.
func (c *cli) stillExists(m machine) string {
	ref := m.ID
	switch {
	case m.Name != "":
		ref = m.Name
	case isTerminal(c.stderr):
		ref = shortID(m)
	}
	return fmt.Sprintf("machine %s still exists; run osx-builder wait %s to wait for it, or osx-builder delete %s to destroy it", c.label(m), ref, ref)
}

// jsonString returns s as JSON.
func jsonString(s string) json.RawMessage {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings always marshal
	}
	return b
}

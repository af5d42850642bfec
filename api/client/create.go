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
		Use:   "create {-f FILE | --image URL --checksum SUM}",
		Short: "Create a machine, and print its document",
		Example: "  osx-builder create -f vm.json --wait\n" +
			"  osx-builder create --image https://example.com/debian.tar.gz --checksum auto --memory 1gib --wait",
		Args: cobra.NoArgs,
		RunE: c.run(func(ctx context.Context, _ []string) error { return o.run(ctx, c) }),
	}
	o.addFlags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&o.key, "idempotency-key", "", "a key of your choice: the same key and request return the same machine")
	f.BoolVar(&o.wait, "wait", false, "wait until the machine is ready")
	addTimeoutFlag(cmd, &o.timeout)
	f.BoolVar(&o.cancel, "cancel-on-interrupt", false, "with --wait: destroy the machine on Ctrl-C or SIGTERM")
	cmd.MarkFlagsOneRequired("file", "image")
	return c.withFieldFlag(cmd)
}

func (o *createOptions) run(ctx context.Context, c *cli) error {
	if o.cancel && !o.wait {
		return usageError("--cancel-on-interrupt needs --wait")
	}
	daemon, err := c.newClient()
	if err != nil {
		return err
	}
	body, err := o.body(ctx, c)
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
		return err
	}
	if !o.wait {
		return c.printDocument(document)
	}
	m, err := parseMachine(document)
	if err != nil {
		return err
	}
	c.infof("machine %s accepted", m.ID)
	m, err = waitFor(ctx, c, daemon, m, goalReady, o.timeout)
	err = errors.Join(err, c.printDocument(m.document))
	if ctx.Err() != nil {
		err = errors.Join(err, o.interrupted(ctx, c, daemon, m.ID))
	}
	return err
}

// interrupted destroys the machine after Ctrl-C, or explains that it still exists.
func (o *createOptions) interrupted(ctx context.Context, c *cli, daemon *apiClient, id string) error {
	if !o.cancel {
		c.infof("machine %[1]s still exists; run osx-builder wait %[1]s to wait for it, or osx-builder delete %[1]s to destroy it", id)
		return nil
	}
	c.infof("destroying machine %s; press Ctrl-C again to keep it", id)
	if err := daemon.destroyVM(context.WithoutCancel(ctx), id); err != nil {
		return fmt.Errorf("destroying machine %s: %w", id, err)
	}
	c.infof("machine %s destroyed", id)
	return nil
}

// jsonString returns s as JSON.
func jsonString(s string) json.RawMessage {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings always marshal
	}
	return b
}

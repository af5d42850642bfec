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

const (
	// standardTimeout is longer than any machine should take, and ends a job
	// that nobody watches.
	standardTimeout = 30 * time.Minute

	// destroyTime is what destroying a machine may take: the daemon waits for
	// whatever it does with it to stop.
	destroyTime = 5 * time.Minute
)

// creation is what the flags of create say.
type creation struct {
	order
	key     string
	wait    bool
	timeout time.Duration
	cancel  bool
}

func (c *cli) createCommand() *cobra.Command {
	var o creation
	cmd := &cobra.Command{
		Use:   "create {-f FILE | --image URL --checksum SUM}",
		Short: "Create a machine, and print its document",
		Example: "  osx-builder create -f vm.json --wait\n" +
			"  osx-builder create --image https://example.com/debian.tar.gz --checksum auto --memory 1gib --wait",
		Args: cobra.NoArgs,
		RunE: c.verb(func(ctx context.Context, _ []string) error { return c.create(ctx, &o) }),
	}
	o.flags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&o.key, "idempotency-key", "", "a word of your own: creating again with it answers the same machine")
	f.BoolVar(&o.wait, "wait", false, "wait until the machine is ready")
	f.DurationVar(&o.timeout, "timeout", standardTimeout, "how long to wait at most; 0 for no bound")
	f.BoolVar(&o.cancel, "cancel-on-interrupt", false, "with --wait: Ctrl-C or SIGTERM destroys the machine")
	cmd.MarkFlagsOneRequired("file", "image")
	return cmd
}

func (c *cli) create(ctx context.Context, o *creation) error {
	if o.cancel && !o.wait {
		return usage("--cancel-on-interrupt needs --wait")
	}
	n, err := c.dial()
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
	// Not given up half way: the answer names the machine that was made. A
	// second Ctrl-C ends the process.
	document, err := n.do(context.WithoutCancel(ctx), http.MethodPost, "/vms", body, header)
	if err != nil {
		return err
	}
	m, err := parseMachine(document)
	if err != nil {
		return err
	}
	if !o.wait {
		return c.print(document)
	}
	c.say("machine %s accepted", m.ID)
	waiting, stop := within(ctx, o.timeout)
	defer stop()
	m, err = c.follow(waiting, n, m, untilReady)
	if err != nil && ctx.Err() != nil {
		return errors.Join(err, c.print(m.document), c.interrupted(ctx, n, m, o.cancel))
	}
	return errors.Join(err, c.print(m.document))
}

// interrupted is what becomes of a creation after Ctrl-C.
func (c *cli) interrupted(ctx context.Context, n *conn, m machine, cancel bool) error {
	if !cancel {
		c.say("machine %[1]s goes on; osx-builder wait %[1]s waits for it, osx-builder delete %[1]s destroys it", m.ID)
		return nil
	}
	c.say("destroying machine %s; Ctrl-C again leaves it", m.ID)
	if err := n.destroy(context.WithoutCancel(ctx), m.ID); err != nil {
		return fmt.Errorf("destroying machine %s: %w", m.ID, err)
	}
	c.say("machine %s destroyed", m.ID)
	return nil
}

// destroy returns when nothing of the machine is left.
func (n *conn) destroy(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, destroyTime)
	defer cancel()
	res, err := n.open(ctx, http.MethodDelete, vmPath(id, ""), nil, nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// text is a JSON string.
func text(s string) json.RawMessage {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings always marshal
	}
	return b
}

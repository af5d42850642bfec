package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// event is an event of the daemon's stream.
type event struct {
	ID       string        `json:"id"`
	Phase    string        `json:"phase"`
	Status   string        `json:"status"`
	Progress *byteProgress `json:"progress"`
	At       time.Time     `json:"at"`

	StoppedBecause string `json:"stopped_because"`

	kind string // vm, gone, hello or reset
	data string // the JSON
}

func newEventsCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "events [ID]", Short: "Print changes of machines as they happen, until Ctrl-C",
		Long: "Prints changes of all machines, or of one, as they happen. For a pipe or a file, and with --json, each line is\none JSON document with its kind in the field event: vm, or gone for a machine that was destroyed.",
		Args: func(_ *cobra.Command, args []string) error { return checkArgs(args, 0, 1, machineArg) }, ValidArgsFunction: c.completeMachine,
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, args []string) error {
			path := ""
			if len(args) == 1 {
				path = "?vm=" + url.QueryEscape(args[0])
			}
			names := &machineNames{daemon: daemon}
			return daemon.follow(ctx, path, func(e event) {
				switch e.kind {
				case "vm", "gone":
					c.printEvent(ctx, e, names)
				case "hello":
					c.infof("connected to %s; Ctrl-C ends", daemon.name)
				default:
					c.infof("some events are lost, because the daemon has not kept them")
				}
			})
		}),
	}
}

// printEvent prints an event in one line.
func (c *cli) printEvent(ctx context.Context, e event, names *machineNames) {
	if !c.forPeople() {
		fmt.Fprintf(c.stdout, `{"event":%s,%s`+"\n", jsonString(e.kind), strings.TrimPrefix(e.data, "{"))
		return
	}
	m := machine{ID: e.ID, Name: names.of(ctx, e.ID), Phase: e.Phase, Status: e.Status, Progress: e.Progress}
	state := m.state()
	if e.kind == "gone" {
		state = "gone"
	}
	parts := []string{e.At.Local().Format(time.TimeOnly), c.label(m), c.paint(c.stdout, stateColor(state), state)}
	if e.StoppedBecause != "" {
		parts = append(parts, e.StoppedBecause)
	}
	fmt.Fprintln(c.stdout, shorten(strings.Join(parts, "  "), terminalWidth(c.stdout)-1+len(parts[2])-columns(state)))
}

// machineNames knows the names of machines, which are not in events.
type machineNames struct {
	daemon *apiClient
	byID   map[string]string
}

// of returns a machine's name, or "" if it has none. A machine that is gone keeps the name that was read before.
func (n *machineNames) of(ctx context.Context, id string) string {
	if name, known := n.byID[id]; known {
		return name
	}
	if n.byID == nil {
		n.byID = make(map[string]string)
	}
	if m, err := n.daemon.machine(ctx, id); err == nil {
		n.byID[id] = m.Name
	}
	return n.byID[id]
}

// follow calls f for each event until ctx ends. query is that of GET /events. If the daemon restarts, follow connects
// again and misses no event that the daemon has kept.
func (c *apiClient) follow(ctx context.Context, query string, f func(event)) error {
	last := ""
	for answeredAt := time.Now(); ; {
		header := make(http.Header)
		if last != "" {
			header.Set("Last-Event-ID", last)
		}
		res, err := c.open(ctx, http.MethodGet, "/events"+query, nil, header)
		if err == nil {
			_ = readEvents(bufio.NewReader(res.Body), func(id string, e event) {
				last, answeredAt = id, time.Now()
				f(e)
			}) // a stream that breaks is opened again
			_ = res.Body.Close() // it was only read
		} else if code := exitCode(context.WithoutCancel(ctx), err); last == "" || code != exitUnavailable || time.Since(answeredAt) > maxOutage {
			return err
		}
		select {
		case <-ctx.Done():
			return errInterrupted
		case <-time.After(pollInterval):
		}
	}
}

// readEvents reads Server-Sent Events until the stream ends.
func readEvents(r *bufio.Reader, f func(id string, e event)) error {
	var id string
	var e event
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		name, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case name == "id":
			id = value
		case name == "event":
			e.kind = value
		case name == "data":
			e.data = value
		case name == "" && e.kind != "": // the end of an event
			if err := json.Unmarshal([]byte(e.data), &e); err != nil {
				return errors.Join(errors.New("reading an event"), err)
			}
			f(id, e)
			e = event{}
		}
	}
}

package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
)

// health has the fields of GET /healthz that people get to see.
type health struct {
	Status     string            `json:"status"`
	Version    string            `json:"version"`
	Error      *apiError         `json:"error"`
	Hypervisor string            `json:"hypervisor"`
	Details    map[string]string `json:"details"`
	Machines   int               `json:"machines"`
	Creating   int               `json:"creating"`
	Disk       struct {
		Free  int64 `json:"free_bytes"`
		Total int64 `json:"total_bytes"`
	} `json:"disk"`
	Limits struct {
		CPUs      int    `json:"cpus"`
		Memory    string `json:"memory"`
		Promised  string `json:"memory_promised"`
		Creations int    `json:"creations"`
		VMs       int    `json:"vms"`
		Pools     []pool `json:"pools"`
	} `json:"limits"`
	Networks map[string]struct {
		Available bool   `json:"available"`
		Reason    string `json:"reason"`
	} `json:"networks"`
}

// pool is a pool of prepared machines.
type pool struct {
	Checksum     string `json:"checksum"`
	ChecksumType string `json:"checksum_type"`
	CPUs         int    `json:"cpus"`
	Memory       string `json:"memory"`
	Count        int    `json:"count"`
	Ready        int    `json:"ready"`
	Problem      string `json:"problem"`
}

// text describes the pool in one line.
func (p pool) text() string {
	const digits = 12
	image := p.ChecksumType + "-" + p.Checksum[:min(digits, len(p.Checksum))]
	text := fmt.Sprintf("%d of %s with %s and %s of image %s wait", p.Ready, plural(p.Count, "machine"), plural(p.CPUs, "CPU"), p.Memory, image)
	if p.Problem != "" {
		text += ": " + p.Problem
	}
	return text
}

func newInfoCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "info", Short: "Print the daemon's health, limits and networks", Args: noArgs,
		Long: "Prints the daemon's health, limits and networks. The exit code is 5 if no machine can be created.",
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, _ []string) error { return info(ctx, c, daemon) }),
	}
}

func info(ctx context.Context, c *cli, daemon *apiClient) error {
	document, err := daemon.health(ctx)
	if err != nil {
		return err
	}
	var h health
	if err := json.Unmarshal(document, &h); err != nil {
		return fmt.Errorf("reading the daemon's health: %w", err)
	}
	if c.forPeople() {
		err = c.printFacts(h.facts(daemon.name))
	} else {
		err = c.printDocument(document)
	}
	if h.Error != nil {
		err = errors.Join(err, &exitError{exitUnavailable, fmt.Errorf("no machine can be created: %w", h.Error)})
	}
	return err
}

// health reads the daemon's health, which it also sends with status 503.
func (c *apiClient) health(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	const path = "/healthz?verbose=1"
	res, err := c.send(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusServiceUnavailable {
		return nil, c.statusError(res, http.MethodGet, path)
	}
	document, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, c.requestError(ctx, err)
	}
	return document, nil
}

func (h health) facts(host string) [][2]string {
	vms := plural(h.Machines, "machine")
	if h.Limits.VMs > 0 {
		vms = fmt.Sprintf("%d of %s", h.Machines, plural(h.Limits.VMs, "machine"))
	}
	facts := [][2]string{
		{"daemon", host + ", version " + h.Version},
		{"status", h.Status},
		{"hypervisor", h.Hypervisor},
	}
	for _, name := range slices.Sorted(maps.Keys(h.Details)) {
		facts = append(facts, [2]string{"  " + name, h.Details[name]})
	}
	facts = append(
		facts,
		[2]string{"machines", fmt.Sprintf("%s, %d being created (at most %d)", vms, h.Creating, h.Limits.Creations)},
		[2]string{"memory", h.Limits.Promised + " of " + h.Limits.Memory + " promised to machines"},
	)
	for _, p := range h.Limits.Pools {
		facts = append(facts, [2]string{"pool", p.text()})
	}
	facts = append(
		facts,
		[2]string{"CPUs", fmt.Sprintf("at most %d for a machine", h.Limits.CPUs)},
		[2]string{"disk", fmt.Sprintf("%s of %s free", humanize.IBytes(uint64(h.Disk.Free)), humanize.IBytes(uint64(h.Disk.Total)))},
	)
	for _, name := range slices.Sorted(maps.Keys(h.Networks)) {
		text := "available"
		if n := h.Networks[name]; !n.Available {
			text = "not available: " + n.Reason
		}
		facts = append(facts, [2]string{"network " + name, text})
	}
	return facts
}

//go:build !linux

package cgroup

import (
	"context"
	"os"
)

// Groups are the control groups of machines, which only Linux has.
type Groups struct{}

// Limits bound all processes of a group together.
type Limits struct {
	Memory    int64
	Processes int
	Weight    int
}

// Open returns groups that do nothing.
func Open() *Groups { return &Groups{} }

// Describe returns why there are no groups.
func (*Groups) Describe() (name, why string) { return "control group of its own", "only Linux has it" }

// Create returns nil.
func (*Groups) Create(string, Limits) (*os.File, error) { return nil, nil }

// Remove does nothing.
func (*Groups) Remove(context.Context, string) error { return nil }

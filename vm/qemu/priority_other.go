//go:build !linux

package qemu

import "time"

// The functions below are for templates, which only Linux has.

func lowerPriority(int) error { return nil }

func demand(int) time.Duration { return 0 }

func freeMemory() int { return 0 }

//go:build vix && cgo && !windows

package vix

import "time"

func orDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

func (l Deadlines) withDefaults() Deadlines {
	orDefault(&l.Connect, 30*time.Second)
	orDefault(&l.Look, 5*time.Second)
	orDefault(&l.Clone, 5*time.Minute)
	orDefault(&l.Start, 2*time.Minute)
	orDefault(&l.Stop, 40*time.Second)
	orDefault(&l.Locks, 2*time.Minute)
	orDefault(&l.Tools, 5*time.Second)
	// govix cuts the time to whole seconds, and VIX takes 0 for no limit.
	l.Tools = max(l.Tools, time.Second)
	return l
}

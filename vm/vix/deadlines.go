//go:build vix && cgo && !windows

package vix

import "time"

func setDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

func (l Deadlines) withDefaults() Deadlines {
	setDefault(&l.Connect, 30*time.Second)
	setDefault(&l.Read, 5*time.Second)
	setDefault(&l.Clone, 5*time.Minute)
	setDefault(&l.Start, 2*time.Minute)
	setDefault(&l.Stop, 40*time.Second)
	setDefault(&l.Unlock, 2*time.Minute)
	setDefault(&l.Tools, 5*time.Second)
	// govix truncates the time to whole seconds, and 0 means no limit to VIX.
	l.Tools = max(l.Tools, time.Second)
	return l
}

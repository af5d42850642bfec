package harness

import (
	"slices"
	"time"
)

// Measure returns how long f takes.
func Measure(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// Median sorts the durations and returns the middle one. There must be at least one.
func Median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

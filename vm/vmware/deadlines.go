package vmware

import "time"

// Deadlines bound single calls of VMware. If a call takes longer, it fails. Destroy takes at most four times Stop and
// once Unlock, which is less than the API's time limit.
type Deadlines struct {
	Connect time.Duration // connecting to VMware; 30 s
	Read    time.Duration // opening a machine or reading its state; 5 s
	Clone   time.Duration // taking a snapshot and making a linked clone; 5 min
	Start   time.Duration // powering on; 2 min
	Stop    time.Duration // powering off or deleting; 40 s
	Unlock  time.Duration // until a machine that is off is unlocked; 2 min
	Tools   time.Duration // one of many waits for the guest's tools; 3 s, at least 1 s
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// WithDefaults returns the deadlines with a default for each that is not set.
func (l Deadlines) WithDefaults() Deadlines {
	setDefault(&l.Connect, 30*time.Second)
	setDefault(&l.Read, 5*time.Second)
	setDefault(&l.Clone, 5*time.Minute)
	setDefault(&l.Start, 2*time.Minute)
	setDefault(&l.Stop, 40*time.Second)
	setDefault(&l.Unlock, 2*time.Minute)
	setDefault(&l.Tools, 3*time.Second)
	// govix truncates the time to whole seconds, and 0 means no limit to VIX.
	l.Tools = max(l.Tools, time.Second)
	return l
}

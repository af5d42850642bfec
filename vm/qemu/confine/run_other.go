//go:build unix && !linux

package confine

import "os/exec"

// Run runs cmd, which [Script] made, under the limits of r. It returns what [exec.Cmd.Run] returns.
func Run(cmd *exec.Cmd, _ Rules) error { return cmd.Run() }

// Measures lists how programs are confined on this host.
func Measures(bool) []Measure {
	const why = "the daemon uses it on Linux only"
	return []Measure{
		{"user of its own", why},
		{"Landlock", why},
		{"seccomp", why},
		{"limits on files and core dumps", ""},
		{"empty environment", ""},
	}
}

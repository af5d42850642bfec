package vm

import "fmt"

// StartMode is how a machine is started for the first time.
type StartMode string

// The ways to start a machine.
const (
	StartBoot   StartMode = "boot"
	StartMemory StartMode = "memory" // it continues a guest whose memory was saved after it had booted
)

// parseStart returns the mode as a spec has it.
func parseStart(s StartMode) (StartMode, error) {
	switch s {
	case "", StartBoot:
		return "", nil
	case StartMemory:
		return s, nil
	}
	return "", fieldError("start", fmt.Sprintf("%q", s), "boot or memory")
}

// StartModes lists every StartMode.
func StartModes() []StartMode { return []StartMode{StartBoot, StartMemory} }

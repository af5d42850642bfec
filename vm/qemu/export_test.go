package qemu

import "path/filepath"

// ReleaseAgent lets another client than the driver speak with the agent of the machine in dir.
func (d *Driver) ReleaseAgent(dir string) { d.agents.Release(filepath.Join(dir, agentSocket)) }

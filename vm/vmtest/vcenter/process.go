package vcenter

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
)

// Flags returns the daemon's flags for this server. password is a file with [Password].
func (s *Server) Flags(password string) []string {
	flags := []string{
		"-driver=vsphere", "-vsphere-url=" + s.URL, "-vsphere-username=" + Username, "-vsphere-password-file=" + password,
		"-vsphere-ca-file=" + s.CAFile, "-vsphere-network=nat=VM Network",
	}
	if !s.opts.ESX {
		flags = append(flags, "-vsphere-cluster=DC0_C0")
	}
	return flags
}

// Process is a simulated vCenter or ESXi in a process of its own.
type Process struct {
	Flags []string // the daemon's flags for it

	cmd   *exec.Cmd
	stdin io.Closer
}

// StartProcess starts the program vcsim at path with these arguments. The caller closes the process.
func StartProcess(path string, args ...string) (*Process, error) {
	p := &Process{cmd: exec.Command(path, args...)}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.stdin = in
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "" {
		p.Flags = append(p.Flags, lines.Text())
	}
	if len(p.Flags) == 0 {
		return nil, fmt.Errorf("%s has not started: %w", path, p.Close())
	}
	return p, nil
}

// Close ends the process.
func (p *Process) Close() error {
	_ = p.stdin.Close() // which ends it
	return p.cmd.Wait()
}

package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"

	"github.com/spf13/cobra"
)

// sshPort is the guest's port for SSH.
const sshPort = 22

// sshOptions are the flags of ssh.
type sshOptions struct {
	user, identity string
}

func newSSHCommand(c *cli) *cobra.Command {
	var o sshOptions
	cmd := &cobra.Command{
		Use: "ssh ID [-- COMMAND...]", Short: "Connect to a machine with this system's ssh",
		Long: "Connects to a machine with this system's ssh: to its address, or to the forwarded port that leads to it. The\n" +
			"host key is known by the machine's id, so that machines with the same address do not disturb each other. It\n" +
			"is accepted at the first connection. The exit code is that of ssh.",
		Example: "  osx-builder ssh web --user root\n  osx-builder ssh web -- uname -a",
		Args: func(_ *cobra.Command, args []string) error {
			return checkArgs(args, 1, len(args), machineArg)
		},
		ValidArgsFunction: c.completeMachine,
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, args []string) error {
			m, err := daemon.machine(ctx, args[0])
			if err != nil {
				return err
			}
			command, err := o.command(c, daemon, m, args[1:])
			if err != nil {
				return err
			}
			return replaceProcess(command)
		}),
	}
	cmd.Flags().StringVarP(&o.user, "user", "l", "", "the user in the guest (default: ssh's)")
	cmd.Flags().StringVarP(&o.identity, "identity", "i", "", "file with the private key (default: ssh's)")
	_ = cmd.MarkFlagFilename("identity") // the flag exists
	return cmd
}

// command returns the arguments of ssh, beginning with its name.
func (o *sshOptions) command(c *cli, daemon *apiClient, m machine, command []string) ([]string, error) {
	host, port := m.IP, sshPort
	for _, f := range m.PortForwards {
		if f.Guest == sshPort {
			port = f.Host
		}
	}
	switch ip := net.ParseIP(host); {
	case host == "":
		return nil, &exitError{exitConflict, fmt.Errorf("machine %s is %s and has no address; osx-builder wait %s --for address waits for it", c.label(m), m.state(), m.ID)}
	case ip != nil && ip.IsLoopback() && daemon.remote:
		return nil, &exitError{exitConflict, fmt.Errorf("machine %s is reached through port %d of the daemon's host only; run osx-builder ssh there", c.label(m), port)}
	}
	args := []string{"ssh", "-o", "HostKeyAlias=osx-builder-" + m.ID, "-o", "StrictHostKeyChecking=accept-new"}
	if o.user != "" {
		args = append(args, "-l", o.user)
	}
	if o.identity != "" {
		args = append(args, "-i", o.identity)
	}
	if port != sshPort {
		args = append(args, "-p", strconv.Itoa(port))
	}
	return append(append(args, "--", host), command...), nil
}

// replaceProcess replaces this process by a command, so that signals and the terminal are its own.
func replaceProcess(command []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return errors.New("ssh is not installed; install OpenSSH's client")
	}
	if err := execute(path, command); err != nil {
		return fmt.Errorf("running %s: %w", path, err)
	}
	return nil
}

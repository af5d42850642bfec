package qemu

import (
	"bytes"
	"context"
	_ "embed" // for identityScript
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"osx-builder/vm"
	"osx-builder/vm/qemu/process"
	"osx-builder/vm/qemu/qmp"
)

var _ vm.IdentityRenewer = (*Driver)(nil)

// identityTimeout bounds how long a guest takes to renew its identity.
const identityTimeout = 2 * time.Minute

// identityScript runs in guests. What it needs is put before it; see [identityInput].
//
//go:embed identity.sh
var identityScript []byte

// RenewIdentity lets the guest's agent run a script that renews the guest's identity. The keys are made on the host:
// guests that continue the same memory could draw the same random numbers, and emulated ones need seconds for a key.
//
// The guest's card stays as it is: as in every machine that runs from memory, the guest knows it by the template's
// addresses, and everybody else by the machine's own, until the guest restarts.
func (d *Driver) RenewIdentity(ctx context.Context, m vm.Machine) error {
	unlock, err := d.changing.Lock(ctx, m.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	pid, err := process.Holder(m.Dir)
	if err != nil {
		return err
	}
	if pid == 0 {
		return errors.New("the machine is off")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, identityTimeout, fmt.Errorf("the guest took longer than %v", identityTimeout))
	defer cancel()
	return runIdentityScript(ctx, &d.agents, filepath.Join(m.Dir, agentSocket), m)
}

func runIdentityScript(ctx context.Context, agents *qmp.Agents, socket string, m vm.Machine) error {
	types, err := hostKeyTypes(ctx, agents, socket)
	if err != nil {
		return err
	}
	input, err := identityInput(m, types)
	if err != nil {
		return err
	}
	result, err := agents.Run(ctx, socket, qmp.Exec{Path: "/bin/sh", Args: []string{"-s"}, Input: input})
	if err != nil {
		return err
	}
	if result.Code != 0 {
		return fmt.Errorf("its script failed in the guest: %s", printable(result))
	}
	return nil
}

// hostKeyTypes returns the types of host keys that the guest's SSH server has.
func hostKeyTypes(ctx context.Context, agents *qmp.Agents, socket string) (types []string, err error) {
	const list = `for key in /etc/ssh/ssh_host_*_key; do echo "$key"; done`
	result, err := agents.Run(ctx, socket, qmp.Exec{Path: "/bin/sh", Args: []string{"-c", list}})
	if err != nil {
		return nil, err
	}
	for _, t := range hostKeyKinds() {
		if bytes.Contains(result.Output, []byte("_"+t+"_key\n")) {
			types = append(types, t)
		}
	}
	return types, nil
}

// identityInput returns the script with what the guest is to become.
func identityInput(m vm.Machine, types []string) ([]byte, error) {
	var b bytes.Buffer
	set := func(name, value string) { fmt.Fprintf(&b, "%s='%s'\n", name, value) } // no value has a quote
	name := m.Hostname()
	if name == "" {
		name, _, _ = strings.Cut(m.ID, "-")
		name = "vm-" + name
	}
	set("name", name)
	set("id", strings.ReplaceAll(uuid.NewString(), "-", ""))
	set("seed", uuid.NewString()+uuid.NewString())
	for _, t := range hostKeyKinds() {
		set("key_"+t, "")
		set("public_"+t, "")
	}
	for _, t := range types {
		private, public, err := newHostKey(t)
		if err != nil {
			return nil, fmt.Errorf("making an SSH host key of type %s: %w", t, err)
		}
		set("key_"+t, private)
		set("public_"+t, public)
	}
	return append(b.Bytes(), identityScript...), nil
}

// printable returns the end of what a program in a guest wrote, for messages.
func printable(r qmp.Result) string {
	const most = 300
	text := strings.TrimSpace(string(bytes.ToValidUTF8(r.Errors, nil)))
	text = text[max(0, len(text)-most):]
	if text == "" {
		return fmt.Sprintf("exit code %d", r.Code)
	}
	return fmt.Sprintf("%q", text)
}

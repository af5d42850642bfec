package network

import (
	"context"
	"fmt"
	"os"
)

// clean removes servers, devices, tables and files, in this order; each that is
// missing is passed over.
func (m *Manager) clean(ctx context.Context) error {
	for _, k := range []Kind{NAT, HostOnly} {
		if err := m.servers.stop(ctx, k); err != nil {
			return fmt.Errorf("stopping dnsmasq on %s: %w", m.bridgeName(k), err)
		}
	}
	if !permitted() || probeRules() != nil {
		return m.removeFiles() // what needs these was never made
	}
	if err := m.rewriting.removeAll(); err != nil {
		return fmt.Errorf("removing nftables tables %s_…: %w", m.table(), err)
	}
	if err := m.devices.removeTaps(&state{}); err != nil {
		return err
	}
	for _, k := range []Kind{NAT, HostOnly} {
		if err := removeLink(m.bridgeName(k)); err != nil {
			return fmt.Errorf("removing bridge %s: %w", m.bridgeName(k), err)
		}
	}
	st, err := m.load()
	if err != nil {
		m.log.Warn("whether the host forwarded packets before is not known; its forwarding may stay on", "err", err)
		st = &state{}
	}
	if err := m.firewall.remove(st); err != nil {
		return fmt.Errorf("removing nftables table %s: %w", m.table(), err)
	}
	return m.removeFiles()
}

func (m *Manager) removeFiles() error {
	if err := os.RemoveAll(m.servers.hostsDir()); err != nil {
		return err
	}
	return os.RemoveAll(m.dir)
}

//go:build !linux

package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
)

// errPlatform is the answer of every verb that would change the host.
var errPlatform = errors.New("managed networks need Linux; guests here get QEMU's user network")

// Manager is what a host without Linux's bridges has instead of networks:
// Available says why, and there is never anything to find or to remove.
type Manager struct{}

// Open returns a Manager that has no network to offer.
func Open(Config) (*Manager, error) { return &Manager{}, nil }

// Available says that managed networks need Linux.
func (*Manager) Available(Kind) error { return errPlatform }

// Warnings returns nothing.
func (*Manager) Warnings() ([]string, error) { return nil, nil }

// Attach says that managed networks need Linux.
func (*Manager) Attach(context.Context, Kind, string, net.HardwareAddr, string) (string, error) {
	return "", errPlatform
}

// Inner says that managed networks need Linux.
func (*Manager) Inner(context.Context, Kind) (Inner, error) { return Inner{}, errPlatform }

// AttachTemplate says that managed networks need Linux.
func (*Manager) AttachTemplate(context.Context, Kind, string) (string, Inner, error) {
	return "", Inner{}, errPlatform
}

// AttachInner says that managed networks need Linux.
func (*Manager) AttachInner(context.Context, Kind, string, net.HardwareAddr, string, Inner) (string, netip.Addr, error) {
	return "", netip.Addr{}, errPlatform
}

// OpenTap says that managed networks need Linux.
func OpenTap(string) (*os.File, error) { return nil, errPlatform }

// Addresses returns 0.
func (*Manager) Addresses(Kind) int { return 0 }

// Alive says that managed networks need Linux.
func (*Manager) Alive(context.Context, Kind, netip.Addr, net.HardwareAddr) error {
	return errPlatform
}

// Repair has nothing to put right.
func (*Manager) Repair(context.Context) error { return nil }

// Address returns the zero Addr.
func (*Manager) Address(net.HardwareAddr) (netip.Addr, error) { return netip.Addr{}, nil }

// Taken says no.
func (*Manager) Taken(netip.Addr, net.HardwareAddr) (bool, error) { return false, nil }

// Detach has nothing to remove.
func (*Manager) Detach(context.Context, string) error { return nil }

// Sweep has nothing to remove.
func (*Manager) Sweep(context.Context, func(id string) bool) error { return nil }

// Clean has nothing to remove.
func (*Manager) Clean(context.Context) error { return nil }

// Close has nothing to remove.
func (*Manager) Close() error { return nil }

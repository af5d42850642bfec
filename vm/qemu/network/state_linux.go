package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
)

// state is what network.json holds: which networks there shall be and who is
// attached to them. All else is read from the kernel.
type state struct {
	Gateways map[Kind]netip.Prefix `json:"gateways"` // the host's own address on the bridge
	Guests   []guest               `json:"guests"`
	Inner    map[Kind]netip.Addr   `json:"inner,omitempty"` // of guests that are started from memory, see [Inner]

	// ForwardingOff is the boot of the host during which it did not forward
	// packets when one of us needed that, so that its forwarding is turned off
	// again in the end.
	ForwardingOff string `json:"forwarding_off,omitempty"`
}

// guest is one card of a machine.
type guest struct {
	ID      string     `json:"id"`
	Name    string     `json:"name,omitempty"` // by which other guests find it in the DNS
	MAC     string     `json:"mac"`            // six lower-case hex pairs with colons
	Kind    Kind       `json:"kind"`
	Tap     string     `json:"tap"`
	Address netip.Addr `json:"address,omitzero"`  // zero if the LAN assigns it
	Inner   *Inner     `json:"inner,omitempty"`   // how the guest knows itself, if it was started from memory
	Endless bool       `json:"endless,omitempty"` // its lease does not end
}

func (g guest) hardwareAddr() (net.HardwareAddr, error) { return net.ParseMAC(g.MAC) }

// load reads the state; there is none before the first guest.
func (m *Manager) load() (*state, error) {
	st := &state{}
	b, err := os.ReadFile(m.statePath())
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(b, st); err != nil {
			return nil, fmt.Errorf("reading %s: %w", m.statePath(), err)
		}
	}
	if st.Gateways == nil {
		st.Gateways = map[Kind]netip.Prefix{}
	}
	if st.Inner == nil {
		st.Inner = map[Kind]netip.Addr{}
	}
	return st, nil
}

// save puts the state in place by one rename. The folder is not synced: what
// the state speaks of is gone after a crash of the host.
func (m *Manager) save(st *state) error {
	b, err := json.MarshalIndent(st, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	return replace(m.statePath(), append(b, '\n'), 0o600)
}

// replace puts a file in its place by one rename, and removes what a crash in
// the middle of an earlier one left. It is called under the change lock.
func replace(path string, b []byte, perm os.FileMode) error {
	dir, name := filepath.Split(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "."+name) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return renameio.WriteFile(path, b, perm, renameio.WithTempDir(dir), renameio.WithStaticPermissions(perm))
}

func (m *Manager) statePath() string { return filepath.Join(m.dir, "network.json") }

// find returns the guest with the card mac, or nil.
func (st *state) find(mac string) *guest {
	for i := range st.Guests {
		if st.Guests[i].MAC == mac {
			return &st.Guests[i]
		}
	}
	return nil
}

// turnedOn reports whether the host forwards packets because of us.
func (st *state) turnedOn() bool { return st.ForwardingOff != "" && st.ForwardingOff == bootID() }

// managed returns the networks of ours that there shall be.
func (st *state) managed() []Kind {
	var kinds []Kind
	for _, k := range []Kind{NAT, HostOnly} {
		if st.Gateways[k].IsValid() {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// has reports whether a card of the machine is attached to k.
func (st *state) has(k Kind, id string) bool {
	return slices.ContainsFunc(st.Guests, func(g guest) bool { return g.Kind == k && g.ID == id })
}

// attached returns the guests of k.
func (st *state) attached(k Kind) []guest {
	return slices.DeleteFunc(slices.Clone(st.Guests), func(g guest) bool { return g.Kind != k })
}

package vm

// NetworkState says whether machines can be attached to networks of a type.
type NetworkState struct {
	Available bool   `json:"available"`
	Reason    string `json:"reason,omitempty"` // why not, and what to do
}

// Networks returns which network types this host offers. It does not block.
func (m *Manager) Networks() map[NetworkType]NetworkState {
	states := make(map[NetworkType]NetworkState)
	for _, t := range []NetworkType{Bridged, NAT, HostOnly} {
		states[t] = NetworkState{Available: true}
		if err := m.opts.Driver.Network(t); err != nil {
			states[t] = NetworkState{Reason: clientError(err).Message}
		}
	}
	return states
}

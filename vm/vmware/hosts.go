package vmware

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"osx-builder/vm"
)

// hostIDs knows VMware's IDs of this host. VMware derives them from the hardware in ways that depend on its version, so
// they are learned from the locks of processes that run here. They are in a file, because after a crash of the host no
// process is left to learn them from.
type hostIDs struct {
	path string // of a JSON object with the IDs of each host that used the data folder, or ""
	self string // this host's key in the object

	mu    sync.Mutex // guards the field below
	known []string
}

// newHostIDs reads the IDs of this host. A file that cannot be read only means that there are none.
func newHostIDs(path string) *hostIDs {
	h := &hostIDs{path: path, self: hostKey()}
	if all, err := h.read(); err == nil {
		h.known = all[h.self]
	}
	return h
}

func (h *hostIDs) read() (map[string][]string, error) {
	all := make(map[string][]string)
	data, err := os.ReadFile(h.path)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	return all, json.Unmarshal(data, &all)
}

// isOwn reports whether id is an ID of this host.
func (h *hostIDs) isOwn(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.known, id)
}

// add adds an ID of this host.
func (h *hostIDs) add(id string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.Contains(h.known, id) {
		return nil
	}
	h.known = append(h.known, id)
	if h.path == "" {
		return nil
	}
	all, err := h.read()
	if err != nil {
		all = make(map[string][]string) // it is damaged, and can be learned again
	}
	all[h.self] = h.known
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return vm.WriteFile(h.path, data)
}

// hostKey returns a name that no other host has and that does not change: the system's own ID of the host if it has
// one, otherwise the address of a network card, otherwise the host's name.
func hostKey() string {
	if id, err := os.ReadFile("/etc/machine-id"); err == nil && len(id) > 0 { // on Linux
		return strings.TrimSpace(string(id))
	}
	if interfaces, err := net.Interfaces(); err == nil {
		for _, i := range interfaces {
			if i.Flags&net.FlagLoopback == 0 && len(i.HardwareAddr) > 0 {
				return i.HardwareAddr.String()
			}
		}
	}
	name, _ := os.Hostname()
	return name
}

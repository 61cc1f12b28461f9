package network

import (
	"bytes"
	"maps"

	"path/filepath"
	"slices"
	"sync"

	"torpor/host"
)

// Config says where a Host keeps its things. The zero value of a field is its
// default.
type Config struct {
	StateFile    string
	Table        string // of nftables, "torpor"; another one keeps a second Host's devices and namespaces apart too
	NamespaceDir string // "/run/netns", where ip netns looks
}

// Host is the machine's side of all networks.
type Host struct {
	config Config

	mu      sync.Mutex
	state   *state
	applied bool                   // rules have been set by this process
	held    map[portKey]heldSocket // sockets that keep other programs off published ports
	saved   []byte                 // what this process has last written to the state file
	turn    uint64                 // counts answers about names that several have
}

// Open reads what an earlier Host left; nothing is changed. Errors:
// host.ErrCorrupt, host.ErrUnsupported for another version's file.
func Open(config Config) (*Host, error) {
	if config.Table == "" {
		config.Table = defaultTable
	}
	if config.NamespaceDir == "" {
		config.NamespaceDir = "/run/netns"
	}
	s, err := loadState(config.StateFile)
	if err != nil {
		return nil, err
	}
	return &Host{config: config, state: s, held: map[portKey]heldSocket{}}, nil
}

const defaultTable = "torpor"

// Restore makes all that the state file says again, after a restart of the
// daemon or the machine, or after somebody has flushed the rules. What is there
// already, and the traffic over it, is left alone.
func (h *Host) Restore() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(h.state.Networks)) {
		if err := h.ensureBridgeLocked(name); err != nil {
			return err
		}
	}
	h.holdAllLocked()
	return h.applyRulesLocked()
}

// Close lets go of the sockets that hold published ports. Networks, namespaces
// and rules stay.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key := range h.held {
		h.releaseLocked(key)
	}
	return nil
}

// Networks lists the networks that exist, sorted.
func (h *Host) Networks() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.state.Networks))
}

// Ports lists a container's published ports; the caller must not change them.
func (h *Host) Ports(id host.ContainerID) []*Port {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.state.Ports[id])
}

// saveLocked writes the state file, if it would change: syncing it takes
// milliseconds, and most starts of a container ask for what it has already.
func (h *Host) saveLocked() error {
	b, err := h.state.encode()
	if err != nil || bytes.Equal(b, h.saved) {
		return err
	}
	if err := writeState(h.config.StateFile, b); err != nil {
		return err
	}
	h.saved = b
	return nil
}

// scoped tells a second Host's names of devices from the first's.
func (h *Host) scoped(name string) string {
	if h.config.Table == defaultTable {
		return name
	}
	return h.config.Table + "/" + name
}

// bridge is the device of a network.
func (h *Host) bridge(network string) string { return bridgePrefix + shortHash(h.scoped(network)) }

// bridgePrefix begins the names of bridges and of nothing else.
const bridgePrefix = "tp-"

// veth is the host's end of a container's device on a network.
func (h *Host) veth(id host.ContainerID, network string) string {
	return "tv-" + shortHash(h.scoped(string(id)+"/"+network))
}

// NamespacePath is where a container's network namespace is mounted.
func (h *Host) NamespacePath(id host.ContainerID) string {
	name := "torpor-" + string(id)
	if h.config.Table != defaultTable {
		name += "-" + shortHash(h.config.Table)
	}
	return filepath.Join(h.config.NamespaceDir, name)
}

// heldSocket is a socket that is only there to exist.
type heldSocket interface{ Close() error }

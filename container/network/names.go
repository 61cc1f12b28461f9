package network

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"torpor/host"
	"torpor/kernel/netns"
)

// SetNames says how a container is called on all its networks, beside its
// aliases there. Case does not matter.
func (h *Host) SetNames(id host.ContainerID, names ...string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.state.Names[id]
	h.state.Names[id] = names
	if err := h.saveLocked(); err != nil {
		h.state.Names[id] = old
		return err
	}
	return nil
}

// Peers lists who a container can call by name: all on its networks, itself
// included, sorted by address, as entries of its hosts file. A name that several
// have is left to the resolver, which gives them in turn: of a hosts file
// programs take the first. While the daemon is away such a name is not
// answered; that of each container is.
func (h *Host) Peers(id host.ContainerID) []HostEntry {
	h.mu.Lock()
	defer h.mu.Unlock()
	var entries []HostEntry
	for _, n := range h.state.Networks {
		if _, on := n.Addresses[id]; !on {
			continue
		}
		owners := h.ownersLocked(n)
		for peer, a := range n.Addresses {
			names := slices.DeleteFunc(h.namesLocked(n, peer), func(name string) bool { return owners[strings.ToLower(name)] > 1 })
			if len(names) > 0 {
				entries = append(entries, HostEntry{Address: a, Names: names})
			}
		}
	}
	slices.SortFunc(entries, func(x, y HostEntry) int { return x.Address.Compare(y.Address) })
	return entries
}

// ownersLocked counts how many containers on a network have each name.
func (h *Host) ownersLocked(n *network) map[string]int {
	owners := map[string]int{}
	for id := range n.Addresses {
		for _, name := range h.namesLocked(n, id) {
			owners[strings.ToLower(name)]++
		}
	}
	return owners
}

// namesLocked are a container's names on a network.
func (h *Host) namesLocked(n *network, id host.ContainerID) []string {
	names := slices.Concat(h.state.Names[id], n.Aliases[id])
	seen := map[string]bool{}
	return slices.DeleteFunc(names, func(name string) bool {
		again := seen[name]
		seen[name] = true
		return again
	})
}

// asker is who sends a question for a name.
type asker struct {
	networks []string // whose names it is told
	outside  bool     // may ask other name servers
}

// askerLocked finds the container with an address, or the host itself.
func (h *Host) askerLocked(from netip.Addr) asker {
	var who host.ContainerID
	for name, n := range h.state.Networks {
		if from == n.gateway() {
			return asker{networks: []string{name}}
		}
		for id, a := range n.Addresses {
			if a == from {
				who = id
			}
		}
	}
	var a asker
	for _, name := range slices.Sorted(maps.Keys(h.state.Networks)) {
		if n := h.state.Networks[name]; who != "" && n.Addresses[who].IsValid() {
			a.networks = append(a.networks, name)
			a.outside = a.outside || !n.Internal
		}
	}
	return a
}

// lookup finds the addresses of a name, without a dot at its end, for whoever
// has the address from. A name may be followed by its network's. Of several,
// those that are attached are given, another one first each time.
func (h *Host) lookup(from netip.Addr, name string) (found []netip.Addr, who asker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	who = h.askerLocked(from)
	ids := map[netip.Addr]host.ContainerID{}
	for _, network := range who.networks {
		n := h.state.Networks[network]
		for id, a := range n.Addresses {
			for _, known := range h.namesLocked(n, id) {
				if strings.EqualFold(name, known) || strings.EqualFold(name, known+"."+network) {
					found, ids[a] = append(found, a), id
					break
				}
			}
		}
	}
	slices.SortFunc(found, netip.Addr.Compare)
	if len(found) < 2 {
		return found, who
	}
	attached := slices.DeleteFunc(slices.Clone(found), func(a netip.Addr) bool {
		there, err := netns.Exists(h.NamespacePath(ids[a]))
		return err != nil || !there
	})
	if len(attached) > 0 {
		found = attached
	}
	h.turn++
	first := int(h.turn % uint64(len(found)))
	return slices.Concat(found[first:], found[:first]), who
}

// reverse finds the name of an address.
func (h *Host) reverse(from, address netip.Addr) (name string, who asker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	who = h.askerLocked(from)
	for _, network := range who.networks {
		n := h.state.Networks[network]
		for id, a := range n.Addresses {
			if names := h.namesLocked(n, id); a == address && len(names) > 0 {
				return names[0] + "." + network, who
			}
		}
	}
	return "", who
}

// HostEntry is one line of a hosts file.
type HostEntry struct {
	Address netip.Addr
	Names   []string
}

// WriteHosts writes a hosts file in place: the file is mounted in a container,
// so it can not be replaced by another. It is overwritten before it is cut, so
// that it is never empty to a reader.
func WriteHosts(path string, entries []HostEntry) error {
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, e := range entries {
		fmt.Fprintf(&b, "%s\t%s\n", e.Address, strings.Join(e.Names, " "))
	}
	if err := writeInPlace(path, b.Bytes()); err != nil {
		return fmt.Errorf("write hosts file: %w", err)
	}
	return nil
}

func writeInPlace(path string, content []byte) error {
	old, err := os.ReadFile(path)
	if err == nil && bytes.Equal(old, content) {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.Write(content); err == nil {
		err = f.Truncate(int64(len(content)))
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

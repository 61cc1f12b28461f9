package network

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// applyRulesLocked replaces the table by what the state says, in one
// transaction: there is no moment without rules. Connections that exist keep
// the translation they have.
func (h *Host) applyRulesLocked() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := &nftables.Table{Name: h.config.Table, Family: nftables.TableFamilyIPv4}
	conn.AddTable(table) // deleting one that does not exist would fail
	conn.DelTable(table)
	if len(h.state.Networks) > 0 {
		r := &ruleset{conn: conn, table: conn.AddTable(table)}
		r.guard()
		if err := r.publish(h.state); err != nil {
			return fmt.Errorf("set nftables rules: %w", err)
		}
		r.addNetworks(h)
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("set nftables rules: %w", err)
	}
	if err := h.openForeignLocked(); err != nil {
		return err
	}
	h.applied = true
	return nil
}

// ruleset is the content of the table while it is made.
type ruleset struct {
	conn  *nftables.Conn
	table *nftables.Table
}

func (r *ruleset) chain(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	return r.conn.AddChain(&nftables.Chain{Name: name, Table: r.table, Type: kind, Hooknum: hook, Priority: priority})
}

func (r *ruleset) add(c *nftables.Chain, parts ...[]expr.Any) {
	r.conn.AddRule(&nftables.Rule{Table: r.table, Chain: c, Exprs: slices.Concat(parts...)})
}

var loopbackNet = netip.MustParsePrefix("127.0.0.0/8")

// guard keeps containers off the host's loopback, which route_localnet of the
// bridges would open. It comes before connections are looked up: answers to
// clients on the loopback are not addressed there yet.
func (r *ruleset) guard() {
	early := r.chain("early", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	r.add(early, inAnyBridge(), prefix(offsetDest, loopbackNet), verdict(expr.VerdictDrop))
}

// publish translates packets to published ports by two maps, one for ports on
// one address and one for ports on every address, so that thousands cost no
// more than one.
//
// Packets that do not fit their connection (very late, or forged) are not
// translated, and come to this host itself, which would reset the connection.
// They are dropped; peers repeat what was worth it.
func (r *ruleset) publish(s *state) error {
	incoming := r.chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	local := r.chain("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	stray := r.chain("stray", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	// A neighbour must not reach what is published on the host's loopback.
	r.add(incoming, prefix(offsetDest, loopbackNet), verdict(expr.VerdictReturn))
	var narrow, wide []nftables.SetElement
	chains := []*nftables.Chain{incoming, local}
	single, shared := apart(s.translations())
	for i, ports := range shared {
		if err := r.balance(chains, i, ports); err != nil {
			return err
		}
		r.add(stray, invalid(), toPort(ports[0]), verdict(expr.VerdictDrop))
	}
	for _, p := range single {
		if p.HostIP.IsValid() {
			narrow = append(narrow, nftables.SetElement{Key: slices.Concat(p.HostIP.AsSlice(), p.keyBytes()), Val: p.targetBytes()})
		} else {
			wide = append(wide, nftables.SetElement{Key: p.keyBytes(), Val: p.targetBytes()})
		}
	}
	for _, m := range []struct {
		name     string
		address  bool
		elements []nftables.SetElement
	}{{"ports_of_address", true, narrow}, {"ports", false, wide}} {
		set, err := r.portMap(m.name, m.address, m.elements)
		if err != nil {
			return err
		}
		for _, c := range chains {
			r.add(c, toThisHost(), lookupPort(set, m.address), translate())
		}
		r.add(stray, invalid(), lookupPort(set, m.address), verdict(expr.VerdictDrop))
	}
	return nil
}

// translations are the published ports, and where gateways answer names.
func (s *state) translations() []*Port {
	var all []*Port
	for _, id := range slices.Sorted(maps.Keys(s.Ports)) {
		all = append(all, s.Ports[id]...)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Networks)) {
		gateway := s.Networks[name].gateway()
		for _, protocol := range []string{"tcp", "udp"} {
			names := &Port{Protocol: protocol, HostIP: gateway, HostPort: 53, Address: gateway, Target: resolverPort}
			if !slices.ContainsFunc(all, func(p *Port) bool { return p.key() == names.key() }) { // published by name: as the user wants
				all = append(all, names)
			}
		}
	}
	return all
}

// portMap makes a map of ports to targets.
func (r *ruleset) portMap(name string, address bool, elements []nftables.SetElement) (*nftables.Set, error) {
	key := []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
	if address {
		key = append([]nftables.SetDatatype{nftables.TypeIPAddr}, key...)
	}
	set := &nftables.Set{Table: r.table, Name: name, IsMap: true, Concatenation: true,
		KeyType:  nftables.MustConcatSetType(key...),
		DataType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)}
	if err := r.conn.AddSet(set, nil); err != nil {
		return nil, err
	}
	for part := range slices.Chunk(elements, 256) { // a netlink attribute has at most 64 KB
		if err := r.conn.SetAddElements(set, part); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// addNetworks says who reaches whom, and who appears as whom.
func (r *ruleset) addNetworks(h *Host) {
	leaving := r.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	forward := r.chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	for _, name := range slices.Sorted(maps.Keys(h.state.Networks)) {
		n, device := h.state.Networks[name], h.bridge(name)
		// To a published port by 127.0.0.1: the container could not answer there.
		r.add(leaving, prefix(offsetSource, loopbackNet), out(device, expr.CmpOpEq), masquerade())
		// From a container to its own network's published port: the answer would
		// go past the translation.
		r.add(leaving, prefix(offsetSource, n.Subnet), out(device, expr.CmpOpEq), translated(true), masquerade())
		if n.Internal {
			r.add(forward, in(device, expr.CmpOpEq), out(device, expr.CmpOpNeq), verdict(expr.VerdictDrop))
			r.add(forward, out(device, expr.CmpOpEq), in(device, expr.CmpOpNeq), verdict(expr.VerdictDrop))
			continue
		}
		r.add(leaving, prefix(offsetSource, n.Subnet), notToBridge(), out("lo", expr.CmpOpNeq), masquerade())
		// What is not published is for the network's own containers; answers to
		// what they asked come in.
		r.add(forward, out(device, expr.CmpOpEq), in(device, expr.CmpOpNeq), original(), translated(false), verdict(expr.VerdictDrop))
	}
}

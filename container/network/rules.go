package network

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// Numbers of netfilter's headers.
const (
	protoTCP       = 6
	protoUDP       = 17
	routeLocal     = 2  // RTN_LOCAL, linux/rtnetlink.h
	statusDNAT     = 32 // IPS_DST_NAT, linux/netfilter/nf_conntrack_common.h
	familyIPv4     = 2  // NFPROTO_IPV4
	offsetSource   = 12 // of the addresses in an IPv4 header
	offsetDest     = 16
	offsetDestPort = 2
)

// applyRulesLocked replaces the table by what the state says, in one
// transaction: there is no moment without rules.
func (h *Host) applyRulesLocked() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := &nftables.Table{Name: h.config.Table, Family: nftables.TableFamilyIPv4}
	conn.AddTable(table) // deleting one that does not exist would fail
	conn.DelTable(table)
	if len(h.state.Networks) > 0 {
		h.addRules(conn, conn.AddTable(table))
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("set nftables rules: %w", err)
	}
	return nil
}

func (h *Host) addRules(conn *nftables.Conn, table *nftables.Table) {
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: kind, Hooknum: hook, Priority: priority})
	}
	incoming := chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	local := chain("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	leaving := chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	forward := chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	add := func(c *nftables.Chain, parts ...[]expr.Any) {
		conn.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: slices.Concat(parts...)})
	}
	for _, id := range slices.Sorted(maps.Keys(h.state.Ports)) {
		for _, p := range h.state.Ports[id] {
			add(incoming, p.match(), p.translate())
			add(local, p.match(), p.translate())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(h.state.Networks)) {
		n, device := h.state.Networks[name], bridge(name)
		// To a published port by 127.0.0.1: the container could not answer there.
		add(leaving, prefix(offsetSource, netip.MustParsePrefix("127.0.0.0/8")), out(device, expr.CmpOpEq), masquerade())
		// From a container to its own network's published port: the answer would
		// go past the translation.
		add(leaving, prefix(offsetSource, n.Subnet), out(device, expr.CmpOpEq), translated(expr.CmpOpNeq), masquerade())
		if !n.Internal {
			add(leaving, prefix(offsetSource, n.Subnet), out(device, expr.CmpOpNeq), masquerade())
			add(forward, in(device, expr.CmpOpEq), toOtherBridge(device), translated(expr.CmpOpEq), verdict(expr.VerdictDrop))
			continue
		}
		add(forward, in(device, expr.CmpOpEq), out(device, expr.CmpOpNeq), verdict(expr.VerdictDrop))
		add(forward, out(device, expr.CmpOpEq), in(device, expr.CmpOpNeq), verdict(expr.VerdictDrop))
	}
}

// match is a packet to the published port of this host.
func (p *Port) match() []expr.Any {
	protocol := byte(protoTCP)
	if p.Protocol == "udp" {
		protocol = protoUDP
	}
	rule := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offsetDestPort, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, p.HostPort)},
	}
	if p.HostIP.IsValid() {
		return append(rule, prefix(offsetDest, netip.PrefixFrom(p.HostIP, 32))...)
	}
	return append(rule,
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(routeLocal)})
}

func (p *Port) translate() []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: p.Address.AsSlice()},
		&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, p.Target)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: familyIPv4, RegAddrMin: 1, RegProtoMin: 2},
	}
}

// prefix matches the address at an offset of the IPv4 header.
func prefix(offset uint32, p netip.Prefix) []expr.Any {
	mask := toIPNet(p.Addr(), p.Bits()).Mask
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

func out(device string, op expr.CmpOp) []expr.Any { return onDevice(expr.MetaKeyOIFNAME, device, op) }
func in(device string, op expr.CmpOp) []expr.Any  { return onDevice(expr.MetaKeyIIFNAME, device, op) }

func onDevice(key expr.MetaKey, device string, op expr.CmpOp) []expr.Any {
	name := make([]byte, 16) // IFNAMSIZ
	copy(name, device)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: name}}
}

// toOtherBridge matches what leaves by a bridge of Torpor's but this one.
func toOtherBridge(device string) []expr.Any {
	return append(out(device, expr.CmpOpNeq),
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("tp-")})
}

// translated with CmpOpNeq matches connections to a published port, with
// CmpOpEq all others.
func translated(op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(statusDNAT), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: make([]byte, 4)},
	}
}

func masquerade() []expr.Any { return []expr.Any{&expr.Masq{}} }

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

package network

import (
	"encoding/binary"
	"net/netip"

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
	dirOriginal    = 0  // IP_CT_DIR_ORIGINAL, linux/netfilter/nf_conntrack_tuple_common.h
	familyIPv4     = 2  // NFPROTO_IPV4
	offsetSource   = 12 // of the addresses in an IPv4 header
	offsetDest     = 16
	offsetDestPort = 2
	register32     = 8 // NFT_REG32_00, linux/netfilter/nf_tables.h: the first of 16 registers of 4 bytes
)

// keyBytes is protocol and port as a map has them: each padded to 4 bytes.
func (p *Port) keyBytes() []byte {
	protocol := byte(protoTCP)
	if p.Protocol == "udp" {
		protocol = protoUDP
	}
	return append([]byte{protocol, 0, 0, 0}, padded(p.HostPort)...)
}

// targetBytes is address and port as a map has them.
func (p *Port) targetBytes() []byte { return append(p.Address.AsSlice(), padded(p.Target)...) }

func padded(port uint16) []byte { return append(binary.BigEndian.AppendUint16(nil, port), 0, 0) }

// toThisHost matches packets to an address of this host.
func toThisHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(routeLocal)},
	}
}

// targetRegister is where lookupPort leaves address and port for translate.
const targetRegister = register32 + 8

// lookupPort matches packets that the map has a target for.
func lookupPort(set *nftables.Set, address bool) []expr.Any {
	var rule []expr.Any
	register := uint32(register32)
	if address {
		rule = append(rule, &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offsetDest, Len: 4})
		register++
	}
	return append(rule,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Payload{DestRegister: register + 1, Base: expr.PayloadBaseTransportHeader, Offset: offsetDestPort, Len: 2},
		&expr.Lookup{SourceRegister: register32, DestRegister: targetRegister, IsDestRegSet: true, SetName: set.Name, SetID: set.ID})
}

// translate sends the packet to the target that lookupPort found.
func translate() []expr.Any {
	return []expr.Any{&expr.NAT{Type: expr.NATTypeDestNAT, Family: familyIPv4, RegAddrMin: targetRegister, RegProtoMin: targetRegister + 1}}
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

// inAnyBridge and outAnyBridge match what comes from, and goes to, any
// container.
func inAnyBridge() []expr.Any  { return anyBridge(expr.MetaKeyIIFNAME, expr.CmpOpEq) }
func outAnyBridge() []expr.Any { return anyBridge(expr.MetaKeyOIFNAME, expr.CmpOpEq) }

// notToBridge matches what leaves for the world outside.
func notToBridge() []expr.Any { return anyBridge(expr.MetaKeyOIFNAME, expr.CmpOpNeq) }

func anyBridge(key expr.MetaKey, op expr.CmpOp) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: []byte(bridgePrefix)}}
}

// translated matches packets of connections to a published port, or all others.
func translated(yes bool) []expr.Any {
	op := expr.CmpOpEq
	if yes {
		op = expr.CmpOpNeq
	}
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(statusDNAT), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: make([]byte, 4)},
	}
}

// invalid matches packets that do not fit the connection they name.
func invalid() []expr.Any {
	const invalid = 1 // NF_CT_STATE_INVALID_BIT, linux/netfilter/nf_conntrack_common.h
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(invalid), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// original matches packets from the side that began the connection.
func original() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{dirOriginal}},
	}
}

func masquerade() []expr.Any { return []expr.Any{&expr.Masq{}} }

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

package filter

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"

	"torpor/socket"
	"torpor/socket/segment"
)

// Numbers of netfilter's headers.
const (
	protoTCP      = 6
	protoReserved = 255
	familyIPv4    = 2 // NFPROTO_IPV4
	familyIPv6    = 10
	register32    = 8 // NFT_REG32_00: the first of 16 registers of 4 bytes
	flagsOffset   = 13
)

// addressKind is one way to name what is guarded.
type addressKind struct {
	name         string
	number       byte // of the family; 0: any address
	addressBytes uint32
	sourceOffset uint32 // the destination is behind it
	datatype     nftables.SetDatatype
}

var addressKinds = []addressKind{
	{"ports", 0, 0, 0, nftables.SetDatatype{}},
	{"ports_of_ipv4", familyIPv4, 4, 12, nftables.TypeIPAddr},
	{"ports_of_ipv6", familyIPv6, 16, 8, nftables.TypeIP6Addr},
}

func (k *addressKind) key() nftables.SetDatatype {
	if k.addressBytes == 0 {
		return nftables.TypeInetService
	}
	return nftables.MustConcatSetType(k.datatype, nftables.TypeInetService)
}

// elements are those of the kind.
func (k *addressKind) elements(guards []netip.AddrPort) []nftables.SetElement {
	seen := map[netip.AddrPort]bool{}
	var all []nftables.SetElement
	for _, g := range guards {
		g = netip.AddrPortFrom(g.Addr().Unmap().WithZone(""), g.Port())
		if seen[g] || uint32(g.Addr().BitLen()/8) != k.addressBytes {
			continue
		}
		seen[g] = true
		key := binary.BigEndian.AppendUint16(g.Addr().AsSlice(), g.Port())
		if k.addressBytes > 0 {
			key = append(key, 0, 0) // each part of a key is padded
		}
		all = append(all, nftables.SetElement{Key: key})
	}
	return all
}

// family matches packets of the kind.
func (k *addressKind) family() []expr.Any {
	if k.number == 0 {
		return nil
	}
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal(k.number)}
}

// lookup matches packets to what is in the set, or from it.
func (k *addressKind) lookup(set *nftables.Set, leaving bool) []expr.Any {
	const portBytes = 2
	port := &expr.Payload{DestRegister: register32 + k.addressBytes/4, Base: expr.PayloadBaseTransportHeader, Offset: portBytes, Len: portBytes}
	address := &expr.Payload{DestRegister: register32, Base: expr.PayloadBaseNetworkHeader, Offset: k.sourceOffset + k.addressBytes, Len: k.addressBytes}
	if leaving {
		port.Offset, address.Offset = 0, k.sourceOffset
	}
	find := &expr.Lookup{SourceRegister: register32, SetName: set.Name, SetID: set.ID}
	if k.addressBytes == 0 {
		return []expr.Any{port, find}
	}
	return []expr.Any{address, port, find}
}

func equal(data ...byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

func protocol(number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal(number)}
}

// opening matches SYN packets of new connections.
func opening() []expr.Any {
	return flags(segment.SYN|segment.ACK|segment.RST|segment.FIN, segment.SYN)
}

// flags matches packets that have these of the flags that are looked at.
func flags(looked, set segment.Flags) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: flagsOffset, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{byte(looked)}, Xor: []byte{0}},
		equal(byte(set)),
	}
}

// perSecond matches so many packets a second.
func perSecond(n int) []expr.Any {
	return []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(n), Unit: expr.LimitTimeSecond, Burst: uint32(n)}}
}

// hasSocket matches packets that a socket of one address takes, and not those
// that only a listener on the wildcard address does, or one that is no full
// socket: then the expression has no value. A connection that is being restored
// does not count.
func hasSocket() []expr.Any {
	return []expr.Any{
		&expr.Socket{Key: expr.SocketKeyWildcard, Register: 1}, equal(0),
		&expr.Socket{Key: expr.SocketKeyMark, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, socket.UnfinishedMark)},
	}
}

// portsHash matches a share of all pairs of ports.
func portsHash(shares, share uint32) []expr.Any {
	const portsBytes = 4
	return []expr.Any{
		&expr.Payload{DestRegister: register32, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: portsBytes},
		&expr.Hash{SourceRegister: register32, DestRegister: 1, Length: portsBytes, Modulus: shares, Seed: 1, Type: expr.HashTypeJenkins},
		equal(binary.NativeEndian.AppendUint32(nil, share)...),
	}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func follow(how expr.VerdictKind, c *nftables.Chain) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: how, Chain: c.Name}}
}

// nativeQueue is nft's own expression. Without the flag bypass the kernel drops
// packets while nobody reads.
func nativeQueue(number uint16) expr.Any { return &expr.Queue{Num: number, Total: 1} }

// xtablesQueue is the target of iptables, which nftables takes with NFT_COMPAT:
// struct xt_NFQ_info_v3 of linux/netfilter/xt_NFQUEUE.h, padded.
func xtablesQueue(number uint16) expr.Any {
	info := binary.NativeEndian.AppendUint16(nil, number)
	info = binary.NativeEndian.AppendUint16(info, 1) // queues
	info = append(info, 0, 0, 0, 0)                  // flags
	return &expr.Target{Name: "NFQUEUE", Rev: 3, Info: (*xt.Unknown)(&info)}
}

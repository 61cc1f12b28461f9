package filter

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"torpor/socket"
)

// shieldKind is one family of shielded connections. A key of its set is remote
// address and port, local address and port, each padded to 4 bytes.
type shieldKind struct {
	name         string
	number       byte // NFPROTO of packets
	sourceOffset uint32
	addressBytes uint32
	datatype     nftables.SetDatatype
}

var shieldKinds = []shieldKind{
	{"shielded_ipv4", familyIPv4, 12, 4, nftables.TypeIPAddr},
	{"shielded_ipv6", familyIPv6, 8, 16, nftables.TypeIP6Addr},
}

func (k *shieldKind) set(table *nftables.Table) *nftables.Set {
	return &nftables.Set{Table: table, Name: k.name, Concatenation: true,
		KeyType: nftables.MustConcatSetType(k.datatype, nftables.TypeInetService, k.datatype, nftables.TypeInetService)}
}

// match matches packets that name a connection of the set.
func (k *shieldKind) match(set *nftables.Set) []expr.Any {
	const portBytes, registerBytes = 2, 4
	rule := []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal(k.number)}
	register := uint32(register32)
	for i := range uint32(2) {
		rule = append(rule, &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: k.sourceOffset + i*k.addressBytes, Len: k.addressBytes})
		register += k.addressBytes / registerBytes
		rule = append(rule, &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: i * portBytes, Len: portBytes})
		register++
	}
	return append(rule, &expr.Lookup{SourceRegister: register32, SetName: set.Name, SetID: set.ID})
}

// elements are those of the kind.
func (k *shieldKind) elements(keys []socket.Key) []nftables.SetElement {
	var all []nftables.SetElement
	for _, key := range keys {
		if uint32(key.Remote.Addr().BitLen()/8) != k.addressBytes {
			continue
		}
		var b []byte
		for _, a := range []struct {
			address []byte
			port    uint16
		}{{key.Remote.Addr().AsSlice(), key.Remote.Port()}, {key.Local.Addr().AsSlice(), key.Local.Port()}} {
			b = append(binary.BigEndian.AppendUint16(append(b, a.address...), a.port), 0, 0)
		}
		all = append(all, nftables.SetElement{Key: b})
	}
	return all
}

// shield drops openings of shielded connections.
func (r *ruleset) shield(guarded *nftables.Chain) error {
	for i := range shieldKinds {
		k := &shieldKinds[i]
		set := k.set(r.table)
		if err := r.conn.AddSet(set, nil); err != nil {
			return err
		}
		r.add(guarded, opening(), k.match(set), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})
	}
	return nil
}

// Shield keeps segments that would open these connections anew (SYN) from the
// kernel also when they are too many for the queues. Its listener would answer
// them, and then the peer's firewalls, and address translation in between, take
// the connection for another one. It lasts until the table is replaced or
// removed, and takes some 70 bytes of the kernel's memory for each connection.
func (f *Filter) Shield(keys []socket.Key) error {
	const perTransaction, perMessage = 2048, 256 // a netlink attribute has at most 64 KB
	conn, err := nftables.New(nftables.WithNetNSFd(f.namespace.Descriptor()))
	if err != nil {
		return fmt.Errorf("shield connections: %w", err)
	}
	table := &nftables.Table{Name: f.config.Table, Family: nftables.TableFamilyINet}
	for some := range slices.Chunk(keys, perTransaction) {
		for i := range shieldKinds {
			set := shieldKinds[i].set(table)
			for part := range slices.Chunk(shieldKinds[i].elements(some), perMessage) {
				if err := conn.SetAddElements(set, part); err != nil {
					return fmt.Errorf("shield connections: %w", err)
				}
			}
		}
		if err := conn.Flush(); err != nil {
			return fmt.Errorf("shield connections: %w", err)
		}
	}
	return nil
}

package network

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// apart tells the ports of one container from those that several share, in the
// order in which they first come.
func apart(all []*Port) (single []*Port, shared [][]*Port) {
	byKey := map[portKey][]*Port{}
	for _, p := range all {
		byKey[p.key()] = append(byKey[p.key()], p)
	}
	for _, p := range all {
		switch ports := byKey[p.key()]; {
		case len(ports) == 1:
			single = append(single, p)
		case ports[0] == p:
			shared = append(shared, ports)
		}
	}
	return single, shared
}

// balance sends new connections to a shared port to its containers in turn.
// The kernel counts, for each chain, so no state of ours is on their way; a
// connection that exists stays where it is, by connection tracking.
func (r *ruleset) balance(chains []*nftables.Chain, number int, ports []*Port) error {
	const incremental = 0 // NFT_NG_INCREMENTAL
	set := &nftables.Set{Table: r.table, Name: fmt.Sprintf("shared_port_%d", number), IsMap: true,
		KeyType: nftables.TypeInteger, DataType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)}
	var elements []nftables.SetElement
	for i, p := range ports {
		elements = append(elements, nftables.SetElement{Key: binaryutil.NativeEndian.PutUint32(uint32(i)), Val: p.targetBytes()})
	}
	if err := r.conn.AddSet(set, elements); err != nil {
		return err
	}
	for _, c := range chains {
		r.add(c, toThisHost(), toPort(ports[0]), []expr.Any{
			&expr.Numgen{Register: register32, Modulus: uint32(len(ports)), Type: incremental},
			&expr.Lookup{SourceRegister: register32, DestRegister: targetRegister, IsDestRegSet: true, SetName: set.Name, SetID: set.ID},
		}, translate())
	}
	return nil
}

// toPort matches packets to a published port.
func toPort(p *Port) []expr.Any {
	var rule []expr.Any
	if p.HostIP.IsValid() {
		rule = append(rule, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offsetDest, Len: 4},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.HostIP.AsSlice()})
	}
	return append(rule,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.keyBytes()[:1]},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offsetDestPort, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.keyBytes()[4:6]})
}

package network

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

// opening is a rule of ours in a chain of somebody else.
type opening struct {
	hook  nftables.ChainHook
	exprs []expr.Any
}

// openings are what others' policies must let through: whatever our own chains
// have not dropped of the packets from and to containers, and their questions
// for names.
func openings() []opening {
	accept := verdict(expr.VerdictAccept)
	question := func(protocol byte) []expr.Any {
		return slices.Concat(inAnyBridge(), []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offsetDestPort, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, resolverPort)},
		}, accept)
	}
	return []opening{
		{*nftables.ChainHookForward, slices.Concat(inAnyBridge(), accept)},
		{*nftables.ChainHookForward, slices.Concat(outAnyBridge(), accept)},
		{*nftables.ChainHookInput, question(protoUDP)},
		{*nftables.ChainHookInput, question(protoTCP)},
	}
}

// openForeignLocked puts our rules at the start of others' chains that drop by
// policy, unless they are there, and takes them out of all chains when there
// are no networks.
func (h *Host) openForeignLocked() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return fmt.Errorf("list nftables chains: %w", err)
	}
	mark := userdata.AppendString(nil, userdata.TypeComment, "torpor table "+h.config.Table)
	changed := false
	for _, c := range chains {
		if !foreign(c) || c.Table.Name == h.config.Table {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			continue // of a kind the library can not read, so not one that we have touched
		}
		ours := slices.DeleteFunc(rules, func(r *nftables.Rule) bool { return !bytes.Equal(r.UserData, mark) })
		wanted := len(h.state.Networks) > 0 && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
		if wanted == (len(ours) > 0) {
			continue
		}
		changed = true
		if wanted {
			insertOpenings(conn, c, mark)
			continue
		}
		for _, r := range ours {
			r.Table, r.Chain = c.Table, c
			if err := conn.DelRule(r); err != nil {
				return fmt.Errorf("remove rule from chain %s of table %s: %w", c.Name, c.Table.Name, err)
			}
		}
	}
	if !changed {
		return nil
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("let containers' packets through others' rules: %w", err)
	}
	return nil
}

func insertOpenings(conn *nftables.Conn, c *nftables.Chain, mark []byte) {
	for _, o := range openings() {
		if o.hook == *c.Hooknum {
			conn.InsertRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: o.exprs, UserData: mark})
		}
	}
}

// foreign reports whether a chain filters forwarded or incoming IPv4 packets.
func foreign(c *nftables.Chain) bool {
	if c.Hooknum == nil || c.Type != nftables.ChainTypeFilter || c.Table == nil {
		return false
	}
	family := c.Table.Family == nftables.TableFamilyIPv4 || c.Table.Family == nftables.TableFamilyINet
	return family && (*c.Hooknum == *nftables.ChainHookForward || *c.Hooknum == *nftables.ChainHookInput)
}

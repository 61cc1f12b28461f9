package network

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"torpor/host"
	"torpor/kernel/netns"
)

// gateTable is the table, in a container's own namespace, that is its closed
// gate.
const gateTable = "torpor_gate"

// CloseGate keeps new connections and datagrams from a container while it is
// made ready: they are dropped, and clients of TCP try again after a second.
// What the container asks for itself, and its loopback, are open. Closing a
// closed gate changes nothing.
func (h *Host) CloseGate(id host.ContainerID) error {
	err := h.inNamespace(id, func(conn *nftables.Conn) {
		table := conn.AddTable(&nftables.Table{Name: gateTable, Family: nftables.TableFamilyINet})
		conn.FlushTable(table)
		chain := conn.AddChain(&nftables.Chain{Name: "input", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: slices.Concat(in("lo", expr.CmpOpNeq), begun(), verdict(expr.VerdictDrop))})
	})
	if err != nil {
		return fmt.Errorf("close gate of %s: %w", id, err)
	}
	return nil
}

// OpenGate lets everybody in. Opening an open gate, or that of a container
// without a namespace, is not an error.
func (h *Host) OpenGate(id host.ContainerID) error {
	err := h.inNamespace(id, func(conn *nftables.Conn) {
		table := conn.AddTable(&nftables.Table{Name: gateTable, Family: nftables.TableFamilyINet}) // deleting one that does not exist would fail
		conn.DelTable(table)
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open gate of %s: %w", id, err)
	}
	return nil
}

// In runs f in a container's network namespace; goroutines that f starts are
// not in it.
func (h *Host) In(id host.ContainerID, f func() error) error { return netns.Do(h.NamespacePath(id), f) }

// inNamespace changes nftables rules in a container's namespace, in one
// transaction.
func (h *Host) inNamespace(id host.ContainerID, change func(*nftables.Conn)) error {
	if there, err := netns.Exists(h.NamespacePath(id)); err != nil || !there {
		return errors.Join(err, os.ErrNotExist)
	}
	ns, err := os.Open(h.NamespacePath(id))
	if err != nil {
		return err
	}
	defer ns.Close()
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return err
	}
	change(conn)
	return conn.Flush()
}

// begun matches packets that begin a connection, or belong to none.
func begun() []expr.Any {
	const established, related = 2, 4 // NF_CT_STATE_BIT of linux/netfilter/nf_tables.h
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(established | related), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
	}
}

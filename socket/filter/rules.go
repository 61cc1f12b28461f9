package filter

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"torpor/socket/segment"
)

// behindFilters is the priority of the chain: after those where users filter (0)
// and security modules (50).
const behindFilters = 100

// The chains that see all packets.
const (
	inputChain  = "input"
	outputChain = "output"
)

// queueTarget makes the expression that sends packets to a queue.
type queueTarget func(number uint16) expr.Any

// lacksNative says that this kernel has no queue expression (NFT_QUEUE).
var lacksNative atomic.Bool

// replaceTable puts the rules in place in one transaction: there is no moment
// without.
func replaceTable(namespace int, c *Config) error {
	if !lacksNative.Load() {
		err := replaceTableBy(namespace, c, nativeQueue)
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := replaceTableBy(namespace, c, xtablesQueue); err != nil {
		return err
	}
	lacksNative.Store(true)
	return nil
}

func replaceTableBy(namespace int, c *Config, queue queueTarget) error {
	conn, err := nftables.New(nftables.WithNetNSFd(namespace))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := &nftables.Table{Name: c.Table, Family: nftables.TableFamilyINet}
	conn.AddTable(table) // deleting one that does not exist would fail
	conn.DelTable(table)
	r := &ruleset{conn: conn, table: conn.AddTable(table)}
	r.joinFragments()
	hold := r.hold(c, queue)
	guarded, err := r.guarded(c, hold)
	if err != nil {
		return fmt.Errorf("set nftables rules: %w", err)
	}
	if err := r.guard(c.Guard, guarded, r.resets(hold)); err != nil {
		return fmt.Errorf("set nftables rules: %w", err)
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("set nftables rules: %w", err)
	}
	return nil
}

// emptyChains leaves the chains that see packets without rules, but not the one
// for fragments: with that, hooks of the kernel's would end, and held packets
// with them.
func emptyChains(namespace int, name string) error {
	conn, err := nftables.New(nftables.WithNetNSFd(namespace))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	for _, chain := range []string{inputChain, outputChain} {
		conn.FlushChain(&nftables.Chain{Name: chain, Table: &nftables.Table{Name: name, Family: nftables.TableFamilyINet}})
	}
	if err := conn.Flush(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("empty table %s: %w", name, err)
	}
	return nil
}

func removeTable(namespace int, name string) error {
	conn, err := nftables.New(nftables.WithNetNSFd(namespace))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Name: name, Family: nftables.TableFamilyINet})
	conn.DelTable(table)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove table %s: %w", name, err)
	}
	return nil
}

// ruleset is the content of the table while it is made.
type ruleset struct {
	conn  *nftables.Conn
	table *nftables.Table
}

func (r *ruleset) chain(name string) *nftables.Chain {
	return r.conn.AddChain(&nftables.Chain{Name: name, Table: r.table})
}

func (r *ruleset) base(name string, hook *nftables.ChainHook, priority int) *nftables.Chain {
	return r.conn.AddChain(&nftables.Chain{Name: name, Table: r.table, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityRef(nftables.ChainPriority(priority))})
}

func (r *ruleset) add(c *nftables.Chain, parts ...[]expr.Any) {
	r.conn.AddRule(&nftables.Rule{Table: r.table, Chain: c, Exprs: slices.Concat(parts...)})
}

// joinFragments makes the kernel put fragments together before any rule sees
// them. For IPv6 it would do so behind the input hook only, and they would pass
// by. This happens as long as a rule with tproxy exists; it matches nothing.
func (r *ruleset) joinFragments() {
	c := r.base("fragments", nftables.ChainHookPrerouting, behindFilters)
	r.add(c, protocol(protoReserved), []expr.Any{
		&expr.Immediate{Register: 1, Data: []byte{0, 1}},
		&expr.TProxy{Family: byte(nftables.TableFamilyUnspecified), TableFamily: byte(nftables.TableFamilyINet), RegPort: 1},
	})
}

// hold makes the chain that sends packets to the queues. Packets of a connection
// have the same ports; the kernel's own spreading looks at addresses only.
func (r *ruleset) hold(c *Config, queue queueTarget) *nftables.Chain {
	hold := r.chain("hold")
	if c.Queues == 1 {
		r.add(hold, []expr.Any{queue(c.QueueBase)})
		return hold
	}
	for i := range c.Queues {
		r.add(hold, portsHash(uint32(c.Queues), uint32(i)), []expr.Any{queue(c.QueueBase + uint16(i))})
	}
	return hold
}

// guarded makes the chain for packets to guarded ports.
func (r *ruleset) guarded(c *Config, hold *nftables.Chain) (*nftables.Chain, error) {
	guarded := r.chain("guarded")
	r.add(guarded, opening(), perSecond(c.SYNRate), follow(expr.VerdictGoto, hold))
	if err := r.shield(guarded); err != nil {
		return nil, err
	}
	r.add(guarded, opening(), accept())
	if c.FastPath {
		r.add(guarded, hasSocket(), accept())
	}
	r.add(guarded, follow(expr.VerdictGoto, hold))
	return guarded, nil
}

// resetsPerSecond is how many RST come to the queues. A flood of packets that
// belong to nobody makes the kernel send as many.
const resetsPerSecond = 1000

// resets makes the chain for what the kernel sends from guarded ports: it must
// not reset a connection whose socket went away while a packet was between the
// rules and it.
func (r *ruleset) resets(hold *nftables.Chain) *nftables.Chain {
	resets := r.chain("resets")
	r.add(resets, flags(segment.RST, segment.RST), perSecond(resetsPerSecond), follow(expr.VerdictGoto, hold))
	return resets
}

// guard sends packets to guarded ports, and from them, to the chains for them.
func (r *ruleset) guard(guards []netip.AddrPort, guarded, resets *nftables.Chain) error {
	input := r.base(inputChain, nftables.ChainHookInput, behindFilters)
	output := r.base(outputChain, nftables.ChainHookOutput, behindFilters)
	if slices.Contains(guards, netip.AddrPort{}) {
		r.add(input, protocol(protoTCP), follow(expr.VerdictJump, guarded))
		r.add(output, protocol(protoTCP), follow(expr.VerdictJump, resets))
		return nil
	}
	for i, kind := range addressKinds {
		elements := kind.elements(guards)
		if len(elements) == 0 {
			continue
		}
		// With an ID, which is that of the transaction: nftables counts its own
		// without a lock.
		set := &nftables.Set{Table: r.table, ID: uint32(i + 1), Name: kind.name, KeyType: kind.key(), Concatenation: kind.addressBytes > 0}
		if err := r.conn.AddSet(set, nil); err != nil {
			return err
		}
		for part := range slices.Chunk(elements, 256) { // a netlink attribute has at most 64 KB
			if err := r.conn.SetAddElements(set, part); err != nil {
				return err
			}
		}
		r.add(input, kind.family(), protocol(protoTCP), kind.lookup(set, false), follow(expr.VerdictJump, guarded))
		r.add(output, kind.family(), protocol(protoTCP), kind.lookup(set, true), follow(expr.VerdictJump, resets))
	}
	return nil
}

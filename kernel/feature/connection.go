package feature

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"torpor/kernel/nfqueue"
	"torpor/kernel/socket"
)

// stayParked is what each of these costs.
const stayParked = "connections of sleeping services stay parked: each keeps 4 KB of kernel memory and ends with its container's init"

// connectionProbes are what suspended connections need.
var connectionProbes = []probe{
	{Feature{"tcp-repair", false, "suspending connections: reading and making them without packets (TCP_REPAIR)",
		stayParked, outside}, tryRepair},
	{Feature{"deaf-sockets", false, "suspending connections: keeping packets from one that is being read (eBPF socket filter)",
		stayParked, configured("CONFIG_BPF_SYSCALL") + "; " + outside}, tryDeafness},
	{Feature{"membarrier", false, "suspending connections: waiting for packets under way (MEMBARRIER_CMD_GLOBAL)",
		stayParked, configured("CONFIG_MEMBARRIER") + "; boot without nohz_full"}, tryBarrier},
	{Feature{"packet-queue", false, "suspending connections: holding their packets (nftables with NFQUEUE)",
		stayParked, configured("CONFIG_NETFILTER_NETLINK_QUEUE, CONFIG_NFT_TPROXY, CONFIG_NFT_LIMIT and CONFIG_NFT_QUEUE, or CONFIG_NFT_COMPAT with CONFIG_NETFILTER_XT_TARGET_NFQUEUE") +
			"; try modprobe nft_queue nft_tproxy nft_limit"}, tryPacketQueue},
	{Feature{"socket-match", false, "letting packets of connections in use past the queue, in Go programs that suspend idle ones (nftables, socket expression)",
		"Go programs that listen on all addresses can not suspend idle connections", configured("CONFIG_NFT_SOCKET") + "; try modprobe nft_socket"}, trySocketMatch},
}

// tryRepair makes a connection to nobody.
func tryRepair(*machine) (string, error) {
	return "", withTCP(func(fd int) error {
		if err := socket.StartRepair(fd); err != nil {
			return err
		}
		if err := socket.SetSequences(fd, 1, 1); err != nil {
			return err
		}
		loopback := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 9)
		if err := socket.ConnectRepaired(fd, socket.IPv4, loopback, 1000); err != nil {
			return err
		}
		info, err := socket.ReadTCPInfo(fd)
		if err != nil {
			return err
		}
		_, err = socket.ReadRepair(fd, info)
		return err // closed in repair mode, it is silent
	})
}

func tryDeafness(*machine) (string, error) {
	return "", withTCP(func(fd int) error {
		deafness, err := socket.NewDeafness()
		if err != nil {
			return err
		}
		return errors.Join(deafness.Deafen(fd), socket.Hear(fd), deafness.Close())
	})
}

func withTCP(f func(fd int) error) error {
	fd, err := socket.New(socket.Kind{Domain: socket.IPv4, Type: socket.Stream, Protocol: socket.TCP})
	if err != nil {
		return err
	}
	return errors.Join(f(fd), unix.Close(fd))
}

func tryBarrier(*machine) (string, error) { return "", socket.AwaitPackets() }

// tryPacketQueue makes a queue, and rules that send to it, each in one of two
// ways.
func tryPacketQueue(*machine) (detail string, err error) {
	const number = 1
	err = inNetwork(func() error {
		q, err := nfqueue.Open(nfqueue.Config{Number: number, CopyBytes: 64, MaxPackets: 16, BufferBytes: 1 << 16})
		if err != nil {
			return err
		}
		defer q.Close()
		limit := &expr.Limit{Type: expr.LimitTypePkts, Rate: 1, Unit: expr.LimitTimeSecond, Burst: 1}
		native, detailed := tryRules(limit, &expr.Queue{Num: number, Total: 1}), "native"
		if native != nil {
			info := xt.Unknown(binary.NativeEndian.AppendUint64(nil, number|1<<16)) // struct xt_NFQ_info_v3: number, queues, flags; padded
			if err := tryRules(limit, &expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info}); err != nil {
				return errors.Join(native, err)
			}
			detailed = "by the target of iptables"
		}
		detail = detailed
		return tryRules(&expr.Immediate{Register: 1, Data: []byte{0, 1}},
			&expr.TProxy{Family: byte(nftables.TableFamilyUnspecified), TableFamily: byte(nftables.TableFamilyINet), RegPort: 1})
	})
	return detail, err
}

func trySocketMatch(*machine) (string, error) {
	return "", inNetwork(func() error {
		return tryRules(&expr.Socket{Key: expr.SocketKeyWildcard, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0}})
	})
}

// tryRules makes a rule for TCP in the namespace of the calling thread.
func tryRules(parts ...expr.Any) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := c.AddTable(&nftables.Table{Name: "torpor-check", Family: nftables.TableFamilyINet})
	chain := c.AddChain(&nftables.Chain{Name: "in", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityFilter})
	tcp := []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}}}
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(tcp, parts...)})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("add nftables rules: %w", err)
	}
	return nil
}

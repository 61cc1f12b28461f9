package feature

import (
	"fmt"
	"net"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"torpor/kernel/inet"
	"torpor/kernel/thread"
)

var networkProbes = []probe{
	{Feature{"bridge", true, "networks of services (network namespaces, bridge, veth)",
		"services have no network but none and host", configured("CONFIG_NET_NS, CONFIG_BRIDGE and CONFIG_VETH") + "; try modprobe bridge veth"}, tryBridge},
	{Feature{"nat", true, "published ports and ways out (nftables with address translation)",
		"ports can not be published and services reach nothing outside", configured("CONFIG_NF_TABLES, CONFIG_NFT_NAT and CONFIG_NFT_MASQ") + "; try modprobe nft_chain_nat nft_masq"}, tryNAT},
	{Feature{"socket-diagnosis", false, "seeing when the last byte went over a connection (sock_diag)",
		"services fall asleep only by torpor sleep", configured("CONFIG_INET_DIAG") + "; try modprobe tcp_diag"}, trySocketDiagnosis},
}

// inNetwork runs f in a network namespace of its own.
func inNetwork(f func() error) error {
	return thread.Do(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		return f()
	})
}

func tryBridge(*machine) (string, error) {
	return "", inNetwork(func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge"}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return fmt.Errorf("add bridge: %w", err)
		}
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth"}, PeerName: "peer"}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("add veth: %w", err)
		}
		if err := netlink.LinkSetMaster(veth, bridge); err != nil {
			return fmt.Errorf("join veth to bridge: %w", err)
		}
		return nil
	})
}

func tryNAT(*machine) (string, error) {
	return "", inNetwork(func() error {
		c, err := nftables.New()
		if err != nil {
			return fmt.Errorf("open nftables: %w", err)
		}
		table := c.AddTable(&nftables.Table{Name: "torpor-check", Family: nftables.TableFamilyIPv4})
		chain := func(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
			return c.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: priority})
		}
		in := chain("in", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
		out := chain("out", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
		c.AddRule(&nftables.Rule{Table: table, Chain: in, Exprs: []expr.Any{
			&expr.Immediate{Register: 1, Data: net.IPv4(192, 0, 2, 1).To4()},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
		}})
		c.AddRule(&nftables.Rule{Table: table, Chain: out, Exprs: []expr.Any{&expr.Masq{}}})
		if err := c.Flush(); err != nil {
			return fmt.Errorf("add nftables rules: %w", err)
		}
		return nil
	})
}

func trySocketDiagnosis(*machine) (string, error) {
	_, err := inet.ReadConnections(os.Getpid())
	return "", err
}

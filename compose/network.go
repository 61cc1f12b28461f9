package compose

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"torpor/host"
)

// networks are the networks in use.
func (c *converter) networks() map[string]host.NetworkSpec {
	if len(c.project.Networks) == 0 {
		return nil
	}
	specs := map[string]host.NetworkSpec{}
	for key, n := range c.project.Networks {
		if !namePattern.MatchString(n.Name) {
			c.invalid(c.key("networks", key, "name"), "%q: letters, digits, _, . and - are allowed", n.Name)
		}
		if n.Driver != "" && n.Driver != "bridge" && n.Driver != "default" {
			c.unsupported(c.key("networks", key, "driver"), "%s", n.Driver)
		}
		if n.EnableIPv4 != nil && !*n.EnableIPv4 {
			c.unsupported(c.key("networks", key, "enable_ipv4"), "false")
		}
		if n.Ipam.Driver != "" && n.Ipam.Driver != "default" {
			c.unsupported(c.key("networks", key, "ipam", "driver"), "%s", n.Ipam.Driver)
		}
		specs[key] = host.NetworkSpec{
			Name: n.Name, External: bool(n.External), Internal: n.Internal,
			IPv6: n.EnableIPv6 != nil && *n.EnableIPv6, Subnets: c.subnets(key, n.Ipam.Config), Labels: nonEmpty(n.Labels),
		}
	}
	return specs
}

// subnets reads the pools of a network. Its first address is the gateway; a
// file may say so but not choose another.
func (c *converter) subnets(network string, pools []*types.IPAMPool) []string {
	var subnets []string
	at := c.key("networks", network, "ipam", "config")
	for _, pool := range pools {
		if pool == nil || pool.Subnet == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(pool.Subnet)
		if err != nil {
			c.invalid(at, "%q: not a subnet", pool.Subnet)
			continue
		}
		prefix = prefix.Masked()
		if gateway, err := netip.ParseAddr(pool.Gateway); pool.Gateway != "" {
			switch {
			case err != nil:
				c.invalid(at, "gateway %q: not an address", pool.Gateway)
			case gateway != prefix.Addr().Next():
				c.unsupported(at, "gateway %s, other than the subnet's first address", gateway)
			}
		}
		subnets = append(subnets, prefix.String())
	}
	return subnets
}

// network converts all of a service that has to do with networks but ports.
func (c *converter) network(s types.ServiceConfig, spec *host.ServiceSpec) {
	switch s.NetworkMode {
	case "":
	case "none", "host":
		spec.NetworkMode = host.NetworkMode(s.NetworkMode)
	default:
		c.unsupported(c.key("services", s.Name, "network_mode"), "%s", s.NetworkMode)
	}
	if spec.NetworkMode == "" {
		for _, name := range s.NetworksByPriority() {
			spec.Networks = append(spec.Networks, c.attachment(s.Name, name, s.Networks[name]))
		}
	}
	if s.MacAddress != "" && len(spec.Networks) > 0 && spec.Networks[0].MAC == "" {
		spec.Networks[0].MAC = s.MacAddress
	}
	spec.ExtraHosts = list(s.ExtraHosts.AsList("="))
	slices.Sort(spec.ExtraHosts)
	for _, entry := range spec.ExtraHosts {
		name, address, _ := strings.Cut(entry, "=")
		if _, err := netip.ParseAddr(address); err != nil && address != "host-gateway" {
			c.invalid(c.item(s.Name, "extra_hosts", name), "%q: not an address", address)
		}
	}
	for _, address := range s.DNS {
		if _, err := netip.ParseAddr(address); err != nil {
			c.invalid(c.key("services", s.Name, "dns"), "%q: not an address", address)
		}
	}
	spec.DNS, spec.DNSSearch, spec.DNSOpt = list(s.DNS), list(s.DNSSearch), list(s.DNSOpts)
}

func (c *converter) attachment(service, network string, n *types.ServiceNetworkConfig) host.NetworkAttachment {
	a := host.NetworkAttachment{Network: network}
	if n == nil {
		return a
	}
	if !n.ServiceNameAliasEnabled() {
		c.unsupported(c.key("services", service, "networks", network, "use_service_name_alias"), "false")
	}
	a.Aliases = list(n.Aliases)
	a.IPv4 = c.address(service, network, "ipv4_address", n.Ipv4Address)
	a.IPv6 = c.address(service, network, "ipv6_address", n.Ipv6Address)
	a.MAC = n.MacAddress
	return a
}

// address checks that a fixed address lies in a subnet of its network.
func (c *converter) address(service, network, key, text string) string {
	if text == "" {
		return ""
	}
	at := c.key("services", service, "networks", network, key)
	address, err := netip.ParseAddr(text)
	if err != nil || address.Is4() != (key == "ipv4_address") {
		c.invalid(at, "%q: not an address", text)
		return text
	}
	n := c.project.Networks[network]
	if n.External {
		return text
	}
	inside := slices.ContainsFunc(n.Ipam.Config, func(pool *types.IPAMPool) bool {
		prefix, err := netip.ParsePrefix(pool.Subnet)
		return err == nil && prefix.Contains(address)
	})
	if !inside {
		c.invalid(at, "%s: not in a subnet that networks.%s.ipam gives", text, network)
	}
	return text
}

// link turns links into aliases: "db:database" lets the name database stand
// for db on each network that both services are on.
func (c *converter) link(spec *host.ProjectSpec) {
	byName := map[host.ServiceName]*host.ServiceSpec{}
	for i := range spec.Services {
		byName[spec.Services[i].Name] = &spec.Services[i]
	}
	for _, s := range spec.Services {
		for _, text := range c.project.Services[string(s.Name)].Links {
			name, alias, ok := strings.Cut(text, ":")
			target := byName[host.ServiceName(name)]
			if target == nil {
				c.invalid(c.item(string(s.Name), "links", name), "no service %q", name)
				continue
			}
			if ok && alias != name {
				addAlias(target, s.Networks, alias)
			}
		}
	}
}

func addAlias(target *host.ServiceSpec, shared []host.NetworkAttachment, alias string) {
	for i := range target.Networks {
		a := &target.Networks[i]
		on := slices.ContainsFunc(shared, func(b host.NetworkAttachment) bool { return b.Network == a.Network })
		if on && !slices.Contains(a.Aliases, alias) {
			a.Aliases = append(slices.Clip(a.Aliases), alias)
		}
	}
}

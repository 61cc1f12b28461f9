package compose

import (
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"torpor/host"
)

// maxPorts bounds the ports of one service, ranges expanded.
const maxPorts = 4096

func (c *converter) ports(s types.ServiceConfig) []host.PortSpec {
	if len(s.Ports) > maxPorts {
		c.unsupported(c.key("services", s.Name, "ports"), "%d ports, more than %d", len(s.Ports), maxPorts)
		return nil
	}
	var ports []host.PortSpec
	for _, p := range s.Ports {
		at := c.item(s.Name, "ports", strconv.Itoa(int(p.Target)))
		if p.Target == 0 || p.Target > 65535 {
			c.invalid(at, "%d: not a port", p.Target)
			continue
		}
		spec := host.PortSpec{Protocol: c.protocol(at, p.Protocol), Target: uint16(p.Target), HostIP: p.HostIP}
		switch {
		case p.Published == "":
		case strings.Contains(p.Published, "-"):
			c.unsupported(at, "any free port of %s", p.Published)
		default:
			n, err := strconv.ParseUint(p.Published, 10, 16)
			if err != nil {
				c.invalid(at, "%q: not a port", p.Published)
			}
			spec.Published = uint16(n)
		}
		switch p.Mode {
		case "", "ingress", "host":
		default:
			c.invalid(at, "%q: want mode host or ingress", p.Mode)
		}
		ports = append(ports, spec)
	}
	if len(ports) > 0 && (s.NetworkMode == "host" || s.NetworkMode == "none") {
		c.warn("service " + s.Name + ": ports have no effect with network_mode " + s.NetworkMode)
	}
	return ports
}

func (c *converter) protocol(at place, protocol string) string {
	switch protocol = strings.ToLower(protocol); protocol {
	case "":
		return "tcp"
	case "tcp", "udp":
	default:
		c.unsupported(at, "protocol %s", protocol)
	}
	return protocol
}

func (c *converter) expose(s types.ServiceConfig) []host.PortSpec {
	var ports []host.PortSpec
	for _, text := range s.Expose {
		at := c.item(s.Name, "expose", text)
		numbers, protocol, _ := strings.Cut(text, "/")
		first, last, ranged := strings.Cut(numbers, "-")
		if !ranged {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || from == 0 || to < from {
			c.invalid(at, "%q: not a port", text)
			continue
		}
		if to-from >= maxPorts {
			c.unsupported(at, "%d ports, more than %d", to-from+1, maxPorts)
			continue
		}
		protocol = c.protocol(at, protocol)
		for n := from; n <= to; n++ {
			ports = append(ports, host.PortSpec{Protocol: protocol, Target: uint16(n)})
		}
	}
	return ports
}

package network

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// resolvConf lists the host's name servers; systemdResolvConf those behind
// systemd-resolved.
const (
	resolvConf        = "/etc/resolv.conf"
	systemdResolvConf = "/run/systemd/resolve/resolv.conf"
)

// WriteResolv writes a resolv.conf: the given servers, or those of the host. A
// resolver on the host's loopback can not be reached from a container; the
// servers behind systemd-resolved's are used instead.
func WriteResolv(path string, servers, search, options []string) error {
	if len(servers) == 0 {
		servers = hostServers()
	}
	var b bytes.Buffer
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	if err := writeInPlace(path, b.Bytes()); err != nil {
		return fmt.Errorf("write resolv.conf: %w", err)
	}
	return nil
}

// Nameservers are those for a container's resolv.conf: the Resolver, and behind
// it the host's own, which are asked when it is away. Internal networks have
// the Resolver alone.
func Nameservers(attachments []Attachment) []string {
	if len(attachments) == 0 {
		return nil
	}
	// A question leaves by the way out, if there is one.
	servers := []string{attachments[0].Gateway.String()}
	if i := slices.IndexFunc(attachments, func(a Attachment) bool { return !a.Internal }); i >= 0 {
		servers = append([]string{attachments[i].Gateway.String()}, hostServers()...)
	}
	return servers[:min(len(servers), 3)] // MAXNS of resolv.conf(5)
}

// hostServers are those of the host that a container can reach.
func hostServers() []string {
	for _, path := range []string{resolvConf, systemdResolvConf} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if servers := slices.DeleteFunc(parseServers(string(b)), isLoopback); len(servers) > 0 {
			return servers
		}
	}
	return nil
}

func isLoopback(server string) bool {
	a, err := netip.ParseAddr(server)
	return err != nil || a.IsLoopback()
}

// parseServers reads the nameserver lines of resolv.conf(5).
func parseServers(content string) []string {
	var servers []string
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if _, err := netip.ParseAddr(fields[1]); err == nil {
			servers = append(servers, fields[1])
		}
	}
	return servers
}

// Package inet reads the TCP and UDP sockets of a network namespace.
//
// Its functions hold no state and may be called concurrently.
package inet

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// diagnose calls f, for IPv4 and IPv6, with a handle of socket diagnosis in the
// namespace of a process.
func diagnose(pid int, f func(h *netlink.Handle, family uint8) error) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open network namespace of %d: %w", pid, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, syscall.NETLINK_INET_DIAG)
	if err != nil {
		return fmt.Errorf("open socket diagnosis of %d: %w", pid, err)
	}
	defer h.Close()
	for _, family := range []uint8{syscall.AF_INET, syscall.AF_INET6} {
		if err := f(h, family); err != nil {
			return fmt.Errorf("list sockets of %d: %w", pid, err)
		}
	}
	return nil
}

// Arrived counts what reached the namespace of a process by UDP and how many
// connections were accepted, since it was made: differences show activity.
func Arrived(pid int) (uint64, error) {
	var sum uint64
	for _, f := range []struct {
		name string
		keys map[string]bool
	}{
		{"snmp", map[string]bool{"Udp InDatagrams": true, "Tcp PassiveOpens": true}},
		{"snmp6", map[string]bool{"Udp6InDatagrams": true}},
	} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, f.name))
		if err != nil {
			if os.IsNotExist(err) {
				continue // no IPv6
			}
			return 0, fmt.Errorf("read network counters: %w", err)
		}
		sum += sumCounters(string(b), f.keys)
	}
	return sum, nil
}

// sumCounters reads both formats: a line of names above a line of values, and
// "name value".
func sumCounters(text string, keys map[string]bool) uint64 {
	var sum uint64
	var names []string
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		if !strings.HasSuffix(fields[0], ":") {
			if len(fields) == 2 && keys[fields[0]] {
				n, _ := strconv.ParseUint(fields[1], 10, 64)
				sum += n
			}
			continue
		}
		if len(names) == 0 || names[0] != fields[0] {
			names = fields
			continue
		}
		for i := 1; i < min(len(fields), len(names)); i++ {
			if keys[strings.TrimSuffix(fields[0], ":")+" "+names[i]] {
				n, _ := strconv.ParseUint(fields[i], 10, 64)
				sum += n
			}
		}
		names = nil
	}
	return sum
}

package daemon

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"torpor/container/network"
)

// WriteHosts implements supplies.
func (b *builder) WriteHosts(r *Record, peers []place) error {
	if err := os.MkdirAll(filepath.Join(b.dir(r), "etc"), 0o755); err != nil {
		return err
	}
	return network.WriteHosts(b.hostsPath(r), hostEntries(r, peers))
}

func (b *builder) hostsPath(r *Record) string { return filepath.Join(b.dir(r), "etc", "hosts") }

// hostEntries are the names that a container knows: extra hosts, itself and
// its peers on the same networks.
func hostEntries(r *Record, peers []place) []network.HostEntry {
	var entries []network.HostEntry
	for _, extra := range r.Spec.ExtraHosts {
		name, value, _ := strings.Cut(extra, "=")
		if value == "host-gateway" && len(r.Attachments) > 0 {
			entries = append(entries, network.HostEntry{Address: r.Attachments[0].Gateway, Names: []string{name}})
		} else if a, err := netip.ParseAddr(strings.Trim(value, "[]")); err == nil {
			entries = append(entries, network.HostEntry{Address: a, Names: []string{name}})
		}
	}
	for i, a := range r.Attachments {
		own := r.names(a.Network)
		if i == 0 && r.hostname() != own[0] {
			own = append([]string{r.hostname()}, own...)
		}
		entries = append(entries, network.HostEntry{Address: a.Address, Names: own})
		for _, p := range peers {
			if a.Network == p.attachment.Network && a.Address != p.attachment.Address {
				entries = append(entries, network.HostEntry{Address: p.attachment.Address, Names: p.names})
			}
		}
	}
	return entries
}

// writeHosts brings the hosts files of every container up to date.
func (d *Daemon) writeHosts() error {
	d.hosts.Lock()
	defer d.hosts.Unlock()
	units := d.all()
	var peers []place
	for _, u := range units {
		peers = append(peers, u.places()...)
	}
	var errs []error
	for _, u := range units {
		if r := u.seen(); len(r.Attachments) > 0 {
			errs = append(errs, d.supplies.WriteHosts(&r, peers))
		}
	}
	return errors.Join(errs...)
}

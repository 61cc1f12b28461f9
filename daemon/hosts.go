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
func (b *builder) WriteHosts(r *Record) error {
	if err := os.MkdirAll(b.etcDir(r), 0o755); err != nil {
		return err
	}
	return network.WriteHosts(filepath.Join(b.etcDir(r), "hosts"), append(hostEntries(r), b.network.Peers(r.ID)...))
}

// etcDir holds the files by which a container knows itself and others.
func (b *builder) etcDir(r *Record) string { return filepath.Join(b.dir(r), "etc") }

// hostEntries are the names that only the container itself knows: its hostname
// and extra hosts.
func hostEntries(r *Record) []network.HostEntry {
	var entries []network.HostEntry
	if len(r.Attachments) > 0 {
		entries = append(entries, network.HostEntry{Address: r.Attachments[0].Address, Names: []string{r.hostname()}})
	}
	for _, extra := range r.Spec.ExtraHosts {
		name, value, _ := strings.Cut(extra, "=")
		if value == "host-gateway" && len(r.Attachments) > 0 {
			entries = append(entries, network.HostEntry{Address: r.Attachments[0].Gateway, Names: []string{name}})
		} else if a, err := netip.ParseAddr(strings.Trim(value, "[]")); err == nil {
			entries = append(entries, network.HostEntry{Address: a, Names: []string{name}})
		}
	}
	return entries
}

// writeHosts brings the hosts files of every container up to date.
func (d *Daemon) writeHosts() error {
	d.hosts.Lock()
	defer d.hosts.Unlock()
	var errs []error
	for _, u := range d.all() {
		if r := u.seen(); len(r.Attachments) > 0 {
			errs = append(errs, d.supplies.WriteHosts(&r))
		}
	}
	return errors.Join(errs...)
}

package volume

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"torpor/block"
	"torpor/block/nbd"
	"torpor/host"
)

// nbdExport is a volume at one address.
type nbdExport struct {
	server *nbd.Server
	uri    string
}

// maxNBDClients bounds the connections of one export, and so its memory: each may
// hold requests of 64 MiB. Clients with several connections have up to 8.
const maxNBDClients = 16

// newNBD makes a server without listeners.
func newNBD(device block.Device, volume string, spec ExportSpec) (*nbdExport, error) {
	config, err := spec.tls()
	if err != nil {
		return nil, err
	}
	server, err := nbd.New(nbd.ServerSpec{TLS: config, RequireTLS: config != nil, MaxConnections: maxNBDClients})
	if err != nil {
		return nil, err
	}
	if err := server.Add(nbd.Export{Name: volume, Device: device, ReadOnly: spec.ReadOnly}); err != nil {
		return nil, err
	}
	return &nbdExport{server, spec.uri(volume)}, nil
}

// listenNBD offers a volume at an address.
func listenNBD(device block.Device, volume string, spec ExportSpec) (*nbdExport, error) {
	e, err := newNBD(device, volume, spec)
	if err != nil {
		return nil, err
	}
	network, address, err := spec.address()
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		if err := removeSocket(address); err != nil {
			return nil, err
		}
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		if err := os.Chmod(address, 0o600); err != nil {
			return nil, errors.Join(err, listener.Close())
		}
	}
	go e.server.Serve(listener) // ends with Close or Suspend, which wait for it
	return e, nil
}

// removeSocket removes what an earlier server left. Another file is not touched,
// nor a socket that somebody answers at.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("listen at %s: a file is there: %w", path, host.ErrExists)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return fmt.Errorf("listen at %s: another process does: %w", path, host.ErrExists)
	}
	return os.Remove(path)
}

// resumeNBD goes on with what a server had suspended.
func resumeNBD(device block.Device, volume string, spec ExportSpec, s suspension) (*nbdExport, error) {
	var handover nbd.Handover
	files, err := s.take(&handover)
	if err != nil {
		return nil, err
	}
	e, err := newNBD(device, volume, spec)
	if err == nil {
		err = handover.SetFiles(files)
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	// Connections that can not go on were closed: their clients connect again.
	if err := e.server.Resume(&handover); len(handover.Listeners) == 0 {
		return nil, errors.Join(err, e.server.Close(), errors.New("resume NBD server: its listener is lost"))
	}
	return e, nil
}

// URI is the address as NBD clients take it.
func (e *nbdExport) URI() string { return e.uri }

// Clients counts connections.
func (e *nbdExport) Clients() int { return e.server.Stats().Connections }

// Suspend leaves listeners and connections to the next server.
func (e *nbdExport) Suspend() (suspension, error) {
	handover, err := e.server.Suspend()
	if err != nil {
		return suspension{}, err
	}
	return suspend(handover, handover.Files())
}

// Close disconnects clients.
func (e *nbdExport) Close() error { return e.server.Close() }

// address splits Listen.
func (e ExportSpec) address() (network, address string, err error) {
	network, address, ok := strings.Cut(e.Listen, ":")
	if !ok || network != "unix" && network != "tcp" || address == "" {
		return "", "", fmt.Errorf("listen at %q: want unix:PATH or tcp:ADDRESS:PORT: %w", e.Listen, host.ErrInvalid)
	}
	return network, address, nil
}

// uri is as the NBD project defines it.
func (e ExportSpec) uri(volume string) string {
	network, address, err := e.address()
	if err != nil {
		return ""
	}
	scheme := "nbd"
	if e.CertFile != "" {
		scheme = "nbds"
	}
	if network == "unix" {
		return scheme + "+unix:///" + volume + "?socket=" + address
	}
	return scheme + "://" + address + "/" + volume
}

// tls is the configuration that the files make; nil without any.
func (e ExportSpec) tls() (*tls.Config, error) {
	if e.CertFile == "" {
		return nil, nil
	}
	certificate, err := tls.LoadX509KeyPair(e.CertFile, e.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}}
	if e.CAFile == "" {
		return config, nil
	}
	authority, err := os.ReadFile(e.CAFile)
	if err != nil {
		return nil, fmt.Errorf("load authority: %w", err)
	}
	config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !config.ClientCAs.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("load authority %s: no certificate is in it: %w", e.CAFile, host.ErrInvalid)
	}
	return config, nil
}

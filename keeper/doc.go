// Package keeper is the process that keeps what must outlive the daemon: it
// copies the services' logs, watches for their exits, puts them to sleep and
// wakes them at the next packet.
//
// Nouns: a Target is what the daemon says about a container; a Status is what
// the keeper knows about it; a Client is the daemon's side of the keeper's
// Unix socket and a Server the keeper's side.
//
// The keeper holds nothing that can not be found again: descriptors of
// sleeping services are parked in their init, checkpoints and targets are on
// disk. After a restart it adopts what it finds. Whoever can open its socket
// is trusted like root; the socket's directory is for root only.
//
// Clients and servers may be used from several goroutines at once.
package keeper

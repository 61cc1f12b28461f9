// Package nbd exports block devices by the Network Block Device protocol, as
// the document proto.md of the NBD project defines it: fixed newstyle
// handshake, structured replies, block status, TLS.
//
// A Server has exports, each a device with a name, and serves the clients that
// its listeners accept. What it needs of a device is package block's contract
// only: flushes of one connection cover what others completed, so every export
// may be used by several connections at once.
//
//	listener -> connection: handshake -> transmission -> end
//	transmission: reader -> device, or worker -> device -> outbox -> client
//
// Blocks. Clients are told the device's block size, and those that asked for it
// are held to it. Others may send requests of single bytes (see view).
//
// Goroutines. A connection owns its own: one has the turn to read requests, and
// handles quick ones itself; slow ones go to a bounded number of workers. When
// the reader is held up by the device or the client, another goroutine takes
// the turn (see turn), so nothing that blocks stops a connection, and no request
// costs a goroutine or a switch that is not needed. Replies are written by
// whoever finds the outbox unattended, several at once.
//
// Memory. A connection holds at most ServerSpec.InFlightBytes for requests that
// are not answered, or whose answers the client has not taken; then it is not
// read. Nobody waits for another connection's share. Options are read up to 64
// KiB, and a handshake takes at most ServerSpec.HandshakeTimeout.
//
// TLS is crypto/tls with certificates, of clients too if the configuration says
// so. Pre-shared keys are not possible: crypto/tls has none. Names of exports
// are no secrets, and nothing but TLS tells who a client is.
//
// Handover. Suspend takes a server out of its connections between two requests
// and Resume goes on with them, in a process that was executed in place.
//
// Not done: extended headers (64-bit lengths), resizing, the old style of
// handshake, metadata contexts other than base:allocation.
package nbd

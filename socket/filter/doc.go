// Package filter keeps packets of suspended connections from the kernel of one
// network namespace, which would reset them, and sees to them instead.
//
// Nouns: a [Filter] is a table of nftables of its own, the queues that the table
// sends packets to, and a reader for each queue; a [Handler] knows which
// connections are suspended and restores them.
//
// What needs the socket (data, FIN, RST) is held, the connection is restored,
// and the packet is released to it: nothing is sent twice. What can be answered
// without it (keepalives, probes of a closed window, forgeries) is answered, by
// rules of package segment; all other packets of suspended connections end here.
// Packets of connections that nobody knows go on at once.
//
// The rules outlive the Filter and the process. Without readers the kernel drops
// what they send to the queues; peers repeat it, and nothing is lost. Opening
// the same table again replaces its content at once.
//
// The chain hangs at input behind the user's filters (priority 100), so what
// they drop wakes nobody; other tables are neither read nor changed. Fragments
// are joined before: the table switches that on for its namespace.
//
// With Config.FastPath the kernel lets through packets that have a socket. It
// looks sockets up by the address that they are bound to, so whatever listens on
// a guarded port must be bound to the wildcard address: a listener of one
// address would get the packets of its suspended connections, and reset them.
// What belongs to a connection that is being opened (NEW_SYN_RECV) or in
// TIME_WAIT takes the way through the queue.
//
// Packets that come while a connection is being suspended are the hard part; see
// [Filter.Still]. With the fast path they still reach the socket, so a socket
// must take none from before it is read on (a socket filter that drops all), or
// what it acknowledges is lost. A RST that the kernel sends all the same, for a
// packet between the rules and a socket that is gone, is held at output and
// dropped.
//
// Each reader calls the Handler on its own goroutine, which it belongs to for
// all packets of a connection, so these keep their order. Two connections may
// be on two readers. A Filter may be used concurrently. Locks, outermost first:
// readers in their order (Still), the Handler's own.
//
// Packets are not trusted, a Handler is. A flood of forged ones costs their way
// through the queue: answers are limited, new connections come by it up to
// Config.SYNRate a second and above that go past it. Openings that name a
// suspended connection go past it too then, unless it was given to
// [Filter.Shield].
package filter

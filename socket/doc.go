// Package socket turns established TCP connections into plain data and back,
// silently for the peer.
//
// A [Spec] is all that is known of a suspended connection; suspending takes the
// kernel's socket away, restoring makes it again (TCP_REPAIR). In between nobody
// answers for the connection: packets that arrive for it must be kept from the
// kernel, which would reset it. Package filter does that, package imagefile
// keeps the records.
//
// Functions work on descriptors of this process and, where they make sockets,
// in the network namespace of the calling thread. They hold no state; different
// sockets may be worked on concurrently. They need CAP_NET_ADMIN.
//
// A decoded record is not trusted: restoring a wrong one gives an error or a
// connection that its peer resets.
package socket

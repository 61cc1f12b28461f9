// Package socket reads and sets what sockets are made of: addresses, options,
// queues, peers.
//
// Functions take descriptors of this process; those that make or list sockets
// do so in the network namespace of the calling thread. They hold no state and
// may be called concurrently for different sockets.
package socket

// Package netns makes network namespaces that need no process to live, and
// runs code in them.
//
// A namespace is named by a path: a file that the namespace is mounted over,
// as ip netns does below /run/netns. It lives until it is removed and its last
// socket, process and device are gone. Functions hold no state, need root and
// may be called concurrently for different paths; paths are the caller's own.
package netns

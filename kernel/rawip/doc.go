// Package rawip sends IP packets that the caller has written, headers and all.
//
// A [Sender] belongs to the network namespace of the thread that opened it and
// may be used concurrently. Needs CAP_NET_RAW. Packets take the ordinary way
// out: routes, and the rules of output, apply.
package rawip

// Package network connects containers: a bridge for each network of a project,
// a network namespace for each container that outlives its sleep, addresses,
// names, and published ports.
//
// Nouns: a Host is the machine's side, with the state file that says which
// network has which subnet and which container which address; an Attachment is
// one container on one network; a Port is a published port.
//
// A Host serialises its operations itself. Every one may be repeated: it makes
// what is missing and leaves the rest, so after a crash the daemon just asks
// again. Rules live in one nftables table of Torpor's own, which is replaced
// as a whole; tables of others are not touched.
//
// Names are resolved by each container's hosts file, which the daemon writes:
// that works while the daemon is away. IPv4 only.
package network

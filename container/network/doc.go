// Package network connects containers: a bridge for each network of a project,
// a network namespace for each container that outlives its sleep, addresses,
// names, and published ports.
//
// Nouns: a Host is the machine's side, with the state file that says which
// network has which subnet and which container which address; an Attachment is
// one container on one network; a Port is a published port; a Resolver answers
// names by DNS.
//
// A Host serialises its operations itself. Every one may be repeated: it makes
// what is missing and leaves the rest, so after a crash or a reboot the daemon
// just asks again. The state file is written before the kernel is changed.
//
// Rules live in one nftables table of Torpor's own, which is replaced as a
// whole. Rules of others are never changed or removed. One thing can not be
// said in a table of one's own: a packet that another table drops stays
// dropped. So where a chain of somebody else, such as docker's or ufw's, drops
// all forwarded packets by its policy, one rule that accepts those of Torpor's
// bridges is put at its start, marked with the table's name, and taken away
// with the last network. Rules that drop explicitly further down, firewalld's
// reject, and iptables-legacy can not be helped like that.
//
// What is open: published ports, from everywhere but only on their address of
// the host; everything between containers of one network. What is closed:
// other ports of a container from outside its networks, the host's loopback
// from containers, and internal networks in both directions.
//
// Names of peers are in each container's hosts file, which works while the
// daemon is away; a Resolver answers the rest. IPv4 only.
package network

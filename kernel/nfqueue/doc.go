// Package nfqueue receives packets that netfilter holds (the NFQUEUE target,
// nft's queue) and tells it what becomes of them.
//
// A [Queue] has one number in one network namespace, that of the thread that
// opened it. While nobody has it open, the kernel drops what is sent to it,
// unless the rule says bypass. One goroutine receives and gives verdicts;
// Close, Stop and Lost may be called by others. Needs CAP_NET_ADMIN.
//
// Messages are believed as far as netlink's own: they come from the kernel, or
// from somebody with CAP_NET_ADMIN in the namespace. The packets in them come
// from anybody.
//
// Why not a library: go-nfqueue v2.0.1 takes 62 allocations and 6.6 KB a packet
// (this one none: go test -bench Packet), and takes the first message that comes
// for the answer to its configuration. With packets on their way, as when a
// filter is opened again, opening then fails.
package nfqueue

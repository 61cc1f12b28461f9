// Package idle lets a Go program keep idle TCP connections without sockets: a
// gateway with a million clients that rarely say something.
//
// A suspended connection costs the kernel nothing and the program some 20 bytes
// of memory; its record is in a file ([Options.Path]), whose pages the kernel
// keeps in memory as long as it has nothing better to do with it. When something
// arrives, the connection is made again and given to [Options.Wake], and the
// packet is released to it: the peer notices nothing but some 0.2 ms. Keepalives
// are answered without waking anything.
//
//	pool, err := idle.Open(idle.Options{
//		Path:   "/var/lib/chat/idle.img",
//		Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:7000")},
//		Wake:   func(c *net.TCPConn, tag uint64) { go serve(c, tag) },
//	})
//	...
//	err = pool.Suspend(conn, tag) // conn is closed; its peer does not know
//
// Connections outlive the process: one that is killed, and started again, finds
// them in the image. What it does not outlive is a reboot.
//
// It needs root, or CAP_NET_ADMIN and CAP_NET_RAW, and Linux with nftables and
// NFQUEUE. Packages filter and imagefile say what of a packet and of the file is
// trusted.
package idle

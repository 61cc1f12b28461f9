// Package segment reads TCP segments out of IP packets, decides what is to be
// done with one whose connection is suspended, and writes the answers that need
// no socket.
//
// Nouns: a [Segment] is what a packet says, a [Decision] what follows from it,
// an [Answer] a segment without data that tells the peer where this end is.
//
// Nothing here does I/O, keeps state or allocates; everything may be called
// concurrently. Packets come from anybody and are not trusted: none of them can
// make a function panic or read outside of the bytes it was given.
//
// Judging follows RFC 9293 (section 3.10.7.4) and RFC 5961, and Linux where it
// differs, because Linux is what the packet is given to afterwards. Of RFC 7323
// it keeps the clock going, but there is no PAWS check: TCP_REPAIR does not tell
// the last timestamp of the peer. Checksums of TCP are not looked at: the copy of
// a packet may be too short, and the kernel drops a wrong one when it is released.
package segment

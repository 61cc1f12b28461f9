// Package imagefile keeps suspended connections in a file.
//
// A [File] is a socket image: entries one behind the other, which are records
// ([socket.Spec]), windows that replace the one of an earlier record, and voids.
// An entry begins with a mark, which says whether it is live, amended (a window
// follows) or dead; removing a record changes its mark in place, so it needs no
// space and can not be undone by damage. A *unit* is 16 bytes, on which entries
// begin. The index, in memory only, has 8 bytes for each connection. The format
// is in docs/format/socket-image.md.
//
// What a method has returned without an error survives the end of the process;
// a power failure it survives after [File.Sync]. Adding that was under way may
// have happened or not. After an error in writing that can not be undone, a
// File refuses changes; opening it again repairs.
//
// A File is for many goroutines: any number read at the same time, one changes.
// One process has a file open, by flock(2); [Check] needs no lock.
//
// The file is not trusted: damage, anywhere, costs the connections that are
// damaged, which Open and Compact name as far as they can, and never gives a
// wrong one. Marks and checksums depend on random numbers of the file, because
// peers choose what unread bytes say and must not be able to forge entries. A
// file that somebody has made up can hold any records, each of them valid.
package imagefile

// Package checkpoint turns a tree of processes into files and parked
// descriptors and back.
//
// Nouns:
//   - a Tree is the processes to be checkpointed, beside the Holder that will
//     keep their descriptors (a container's init);
//   - a Spec is all that is known of a checkpointed tree but the content of its
//     pages: plain data, written to the file `meta`;
//   - the pages image `pages.img` holds the content of private pages, one slot
//     a mapping; restored processes map it privately, so restoring reads
//     nothing and a second dump writes only what was changed since;
//   - a script is the list of system calls that rebuilds a tree, compiled from
//     a Spec and executed by package blob's interpreter inside the new
//     processes in one stretch;
//   - a Stub is a process that waits in the container's namespaces with the
//     script mapped, to become the tree.
//
// Dump changes nothing in the processes until its commit; an error before that
// leaves them running unharmed. A tree is dumped and restored by one goroutine
// at a time; different trees may be handled concurrently.
//
// Checkpoints are files of root: their checksum finds damage, not malice.
// What the processes themselves wrote (names, memory) is never trusted to be
// well formed.
package checkpoint

// Package aio reads and writes files without a thread that waits for each
// request: io_submit(2) and io_getevents(2).
//
// Nouns: a Queue takes Requests from any number of goroutines; one goroutine of
// its own learns of those that ended, many at a time, and calls their Done.
//
// Why not io_uring: it tells the thread that submitted a request of its end, by
// interrupting it, and Go's threads are submitters and wait for other things at
// once. It is also forbidden on many hosts.
//
// Only direct I/O (O_DIRECT) is asynchronous; other files are read and written
// before Submit returns. Least kernel: 4.13 (RWF_NOWAIT).
package aio

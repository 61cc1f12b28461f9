// Package hostdev exports a block.Device as a block device of this host,
// /dev/loopN: a loop device with direct I/O on a file in a FUSE file system
// that this process serves.
//
// Nouns: an Export is such a device; its server answers the kernel's requests
// by readers, goroutines that read one request after the other and call the
// device themselves; a State is what another process needs to go on with an
// export.
//
// The kernel's requests become calls of the device: WRITE and READ of up to 1
// MiB; fallocate with a hole is Discard, with zeros Zero; FSYNC is Flush. FUA
// reaches the device as a write and a Flush. A request is copied once, between
// the kernel's pages and a buffer that is aligned to 4096 bytes. The kernel
// submits flushes, discards and zeros of one control group one after the other,
// and other requests of that group wait behind them.
//
// Errors of the device reach the file system above with their errno, but for
// those of discards and zeros, which the loop driver makes EIO.
//
// Handing over. The mount lives as long as a descriptor of its connection is
// open somewhere. Suspend stops the readers between two requests and returns
// the descriptor, so that a newer program can go on with Resume: whoever uses
// the device only waits. For a process that is killed, another one can hold a
// Handle; Resume then asks for the requests again that were read and not
// answered, so answers of the device must not be lost with the process: what it
// acknowledged it still has, and writing a block again is harmless. Whoever uses
// the device may still see an error: a request that the kernel was just copying
// to the killed process fails with EIO if a page of the buffer was not in
// memory.
//
// Deadlock. This process must not touch the mount, nor files on file systems
// on its own exports: the readers could not answer if all threads waited, and
// before Resume there are none. A
// file of package os is asked for events besides (FUSE_POLL), by a thread that
// keeps a processor of Go's. Memory that its threads allocate may make the kernel wait
// for writes to just these: proc.BecomeFlusher at the start of the process
// prevents that.
//
// What is trusted: the kernel. Only root can see into the mount.
package hostdev

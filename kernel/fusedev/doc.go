// Package fusedev mounts FUSE file systems and moves their requests between
// the kernel and this process.
//
// A Connection is an open /dev/fuse with a file system mounted on it. Requests
// and answers are bytes here, in the layout of linux/fuse.h; what they mean is
// the caller's business. The mount lives as long as a descriptor of the
// connection is open in some process: so a connection can be handed to another
// process, by inheritance or a Unix socket, and requests wait meanwhile.
//
// Read and Write may be called by any number of goroutines. Both are blocking
// system calls: a goroutine in Read holds a thread. All of this needs root.
package fusedev

// Package backing makes block devices of what the host has: a File is a regular
// file or a block device, a Directory one with a file for each chunk of it.
//
// Both are volatile: writes stay in the page cache or in the disk's own until
// Flush or FUA, which are fdatasync and RWF_DSYNC. An error of either is kept:
// from then on Flush fails until the device is opened again, because the kernel
// tells of pages that it lost only once.
//
// Who opens to write holds a lock that keeps others from doing so too; who
// opens read-only holds none and may see half of what others write.
package backing

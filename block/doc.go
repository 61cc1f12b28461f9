// Package block is the contract of block devices: what a volume is to whoever
// exports it, a disk to the volume above it, and a wrapper to both.
//
// A Device is a range of bytes that is read and written in whole blocks. What
// is written may stay in a volatile cache until Flush, like on a disk: see
// Device for what exactly is promised. Devices compose; each package below
// block makes one kind:
//
//	block/memory      in memory
//	block/backing     a file, a block device, or a directory of the host
//	block/logvolume   an erasure-coded log over other devices
//	block/trace       records what passes, and makes the states a power cut would leave
//	block/fault       fails, delays and damages what passes
//	block/align       small blocks on larger ones
//
// and two packages export any of them: block/nbd to the network, block/hostdev
// as a block device of this host. block/devicetest is the suite that every
// kind passes.
//
// Errors carry an errno (errors.As), so that exports can hand it on; the kinds
// that callers tell apart are the variables of this package.
package block

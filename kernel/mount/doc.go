// Package mount makes and removes mounts.
//
// Nouns: an Overlay says which directories are stacked; a target is the
// directory that a mount covers. Functions hold no state and may be called
// concurrently for different targets. They act in the calling thread's mount
// namespace, need root, and trust their arguments: paths come from Torpor
// itself or its administrator, and targets follow symbolic links.
//
// Errors keep the errno; where the kernel explains itself (fsconfig's log),
// its words are in the error. A file system that the kernel does not have is
// host.ErrKernel.
package mount

// Package object says how open files can be made again, and makes them.
//
// Nouns: an Open is an open file of a stopped process, duplicated into this
// one; a Spec is plain data, its description, that says how to make it again,
// in another container and after a reboot; a Container is where it is made; a
// SegmentSpec describes a System V shared memory segment. docs/objects.md lists
// the classes of kernel objects, and what is refused.
//
// A checkpoint within one boot parks open files and needs none of this. One
// that is restored later, or several times, holds a Spec for every open file;
// content that no path leads to (deleted files, memory files) is copied into its
// directory, what is unread in pipes and sockets into the Spec.
//
// Describe changes nothing that a program could notice: whatever it can not
// describe it refuses by name. Make validates Specs and trusts them only as far
// as their checkpoint's seal goes: it never leaves the container's root directory
// or its network namespace, never waits for others, and writes only socket files
// and what has no name.
//
// All functions may be called concurrently, for one container by one caller at
// a time. They need root, Linux 6.5 and kcmp.
package object

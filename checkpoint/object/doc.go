// Package object says how open files can be made again, and makes them.
//
// Nouns: an Open is an open file of a stopped process, duplicated into this
// one; a Spec is plain data that says how to make it again, in another
// container and after a reboot; a Container is where it is made.
//
// A checkpoint within one boot parks open files and needs none of this. One
// that is restored later, or several times, holds a Spec for every open file;
// content that no path leads to (deleted files, memory files, pipes) is copied
// into its directory.
//
// Describe changes nothing: whatever it can not describe it refuses by name.
// Make trusts a Spec only as far as its checkpoint's seal goes, and still never
// leaves the container's root directory or its network namespace.
//
// All functions may be called concurrently for different containers.
package object

// Package feature finds out what this machine can do, by trying and not by
// asking for versions.
//
// Nouns: a Feature is something that Torpor uses, with what it enables, what
// its absence costs and what to do about that; a Result is a Feature that was
// tried. Trying needs root for nearly all of them, makes only namespaces,
// processes and files of its own, and leaves nothing behind.
//
// Kernel features are tried once a process, on first use; functions may be
// called concurrently. Nothing here reads input from outside the machine.
package feature

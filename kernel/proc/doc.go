// Package proc reads what the kernel says about processes under /proc, and
// their memory.
//
// Nouns: a Process is one entry of /proc, named by its pid in the reader's pid
// namespace; a VMA is one line of its maps with the flags of smaps; a
// PageRange is a run of pages of one kind.
//
// Functions hold no state and may be called concurrently. Files of /proc are
// written by the kernel but carry names chosen by the traced program (comm,
// paths), so parsers take any bytes and never index by what they read.
package proc

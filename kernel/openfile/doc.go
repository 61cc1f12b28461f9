// Package openfile asks about open files and opens files again.
//
// An open file (the kernel's open file description) is what descriptors refer
// to: several descriptors, also of several processes, may be the same one.
// Functions take descriptors of this process, hold no state and may be called
// concurrently. They change nothing of an open file unless they say so.
package openfile

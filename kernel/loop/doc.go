// Package loop makes block devices of files, by the kernel's loop driver.
//
// Nouns: a Device is /dev/loopN, attached to its backing file or free; a Spec
// says how to attach one. A Device is a name: it holds nothing open, stays
// attached when this process ends, and may be used by any number of goroutines.
// Numbers are used again by whoever asks first, so whoever keeps a Device
// compares its backing file with what it was.
//
// Limits of a device's queue in /sys stay with its number when it is detached,
// and a limit of 0 bytes to discards can not be taken back: nothing is set there.
//
// All of this needs root. Least kernel: 5.8 (LOOP_CONFIGURE).
package loop

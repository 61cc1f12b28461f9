// Package trace records what passes to a device, and makes from the record the
// states that a power cut would leave: crash clones.
//
// A Device hands everything on to the device below, and notes when each change
// and each flush began and ended. The devices of a group share one Recording
// with one clock, so that several disks can be cut at the same moment.
//
// A crash clone holds what package block promises, and of the rest anything:
// blocks of changes that ended but were not flushed, or had not ended, are there
// or not, each on its own. A flush that had not ended promises nothing, nor does
// a change or flush that failed.
//
// Changes that overlap are handed on one after the other, because which came
// last could not be known otherwise.
package trace

// Package align makes a device of small blocks, down to single bytes, of one of
// larger blocks: it reads, changes and writes those that a request covers in part.
//
// Changes of the same large block are kept apart, so that neighbours do not undo
// each other. Durability and what a crash may leave are as package block says,
// for the small blocks.
package align

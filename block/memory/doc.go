// Package memory is a block device in memory, thin: only what was written, and
// not discarded or zeroed since, takes space. It ends with its process.
package memory

// Package format is what a log volume writes to its disks: superblocks, row
// headers, journal records, leaves and manifests, as plain data and as bytes.
//
// Encoding never fails for values within the limits that each type states, and
// panics beyond them: those are our own. Decoding trusts nothing: bytes come
// from disks that may be damaged, torn, stale or hostile. A decoder returns
// ErrFormat, or a value that Validate accepts; it allocates no more than its
// input justifies. The offset tables are in docs/format/log-volume.md.
//
// All functions are pure and may be called from several goroutines at once.
package format

// Package logvolume keeps volumes in an erasure-coded log over several disks.
//
// A Log is opened on its disks, any block.Devices, and holds volumes, their
// snapshots and clones. A Volume is a block.Device; how data gets to the disks
// and back is in DESIGN.md, "Volumes", and the bytes in
// docs/format/log-volume.md (package format).
//
// Besides what block.Device promises: changes reach the disks in the order in
// which they were acknowledged, over all volumes of a log, so what a crash
// leaves is a prefix of it. Up to as many disks as the layout has parity may
// be missing, failing, or wrong; what is read is compared with a checksum, so
// it is right or an error.
//
// All methods of Log and Volume may be called from any number of goroutines at
// once. Log.mu guards everything in memory; no I/O is done under it. A row is
// *cut* under it: it gets its number, its place, and the map is changed; then
// it is written. Goroutines, all ended by Log.Close: the cutter makes rows of
// what is queued, writers write them, the cleaner frees segments, and the
// checkpointer bounds what a recovery has to read. Requests to disks have
// goroutines of their own, which outlive the log if the disk never answers; their
// memory is not used again.
//
// Lock order: layersMu, cleanMu, checkpointMu, superMu, mu. The disks are trusted for nothing but that
// what they return was chosen by nobody who knows the checksums.
package logvolume

// Package blockmap is the map of a log volume in memory: for each block of each
// layer where it is in the log.
//
// A *layer* has a table of *leaves*, 512 entries each. A leaf is absent, on disk
// only, or in memory: clean, with a place on disk, or dirty, with an outdated one
// or none. The table takes 16 bytes for a leaf, and memory only where leaves are.
//
// The map does no I/O. What needs a leaf that is on disk only changes nothing
// more and returns Missing; the caller reads that block, calls Put, and asks again.
//
// A block that a layer leaves Unmapped is what the parent says, as long as it is
// within the parent's size; beyond that it is zeros. So is what no layer maps.
// Holes say that a block is zeros whatever is below; where nothing is below, a
// hole is as good as Unmapped and becomes it sooner or later.
//
// Checkpoints: Freeze takes the dirty leaves as they are; whoever changes one of
// them afterwards changes a copy. The log writes them, says where they are now
// (Frozen.Written), takes the list of all leaves as of the freeze for the
// manifest (Frozen.Records), and calls Frozen.Done when that is durable. Only one
// freeze is open at a time.
//
// Places of leaves are reported as released exactly once, by the function given
// to New: when a leaf is dropped or was written elsewhere. What a manifest that is
// being made names is reported by Done, not earlier. So after the last Written,
// what was loaded or written and not released is exactly what the manifest names;
// and what was released before Done is named by no manifest from that one on. The
// block of a released leaf must stay until that next manifest is durable: recovery
// from the last one reads it.
//
// Concurrency: the map has no lock. The log calls everything under its own mutex,
// but for what says otherwise. Calls that may take long work in steps.
//
// Names that do not exist, such as layers that were removed, are the caller's
// broken invariant, and panic.
package blockmap

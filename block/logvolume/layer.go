package logvolume

import (
	"maps"
	"slices"

	"torpor/block/logvolume/format"
)

// layer is the changes between two snapshots. All is guarded by Log.mu.
type layer struct {
	id, parent format.LayerID
	sizeBlocks format.Block
	// volume is set in the layer that a volume writes to; snapshot and of in a
	// snapshot of the volume of.
	volume, snapshot, of string
	createdUnixNS        int64
	removed              bool // is being merged into the layer above, or taken apart
}

// layerRecords is what the manifest says of the layers, without leaves, by ID.
func (l *Log) layerRecords() []format.LayerRecord {
	var records []format.LayerRecord
	merged := l.blocks.Merged()
	ids := slices.Collect(maps.Keys(l.layers))
	ids = slices.AppendSeq(ids, maps.Keys(merged))
	slices.Sort(ids)
	for _, id := range ids {
		if into, ok := merged[id]; ok {
			records = append(records, format.LayerRecord{ID: id, MergedInto: into})
			continue
		}
		y := l.layers[id]
		records = append(records, format.LayerRecord{ID: id, Parent: y.parent, SizeBlocks: uint64(y.sizeBlocks), Volume: y.volume,
			Snapshot: y.snapshot, Of: y.of, CreatedUnixNS: y.createdUnixNS, Removed: y.removed})
	}
	return records
}

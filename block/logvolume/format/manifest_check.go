package format

import "fmt"

// maxLeaves bounds leaf indexes.
const maxLeaves = uint64(MaxBlock / LeafEntries)

// Validate returns ErrFormat with what is wrong. It does not look whether two
// shards are in one slot.
func (m *Manifest) Validate() error {
	for i := range m.Streams {
		if err := m.Streams[i].validate(Stream(i)); err != nil {
			return err
		}
	}
	for i := range m.Segments {
		s := &m.Segments[i]
		if err := s.validate(); err != nil {
			return err
		}
		if i > 0 && s.ID <= m.Segments[i-1].ID {
			return fmt.Errorf("segment %d behind segment %d: %w", s.ID, m.Segments[i-1].ID, ErrFormat)
		}
	}
	for _, place := range m.Younger {
		if err := validateShards(place.ID, place.Shards); err != nil {
			return err
		}
	}
	if len(m.Disks) > MaxDisks {
		return fmt.Errorf("%d disks: %w", len(m.Disks), ErrFormat)
	}
	if len(m.Layers) > MaxLayers {
		return fmt.Errorf("%d layers: %w", len(m.Layers), ErrFormat)
	}
	for i := range m.Layers {
		if err := m.Layers[i].validate(m.NextLayer); err != nil {
			return err
		}
	}
	return m.validateTree()
}

func (s *StreamRecord) validate(stream Stream) error {
	if s.Column > maxColumns || s.Segment == NoSegment && s.Column > 0 || s.Next != NoSegment && s.Next == s.Segment {
		return fmt.Errorf("stream %d in segment %d, column %d, then in segment %d: %w", stream, s.Segment, s.Column, s.Next, ErrFormat)
	}
	return validateShards(s.Next, s.NextShards)
}

func (s *SegmentRecord) validate() error {
	if s.ID == NoSegment || s.Stream >= StreamCount || s.Columns > maxColumns || uint64(s.Live) > uint64(s.Columns)*MaxShards {
		return fmt.Errorf("segment %d of stream %d with %d columns, %d blocks live: %w", s.ID, s.Stream, s.Columns, s.Live, ErrFormat)
	}
	return validateShards(s.ID, s.Shards)
}

func (l *LayerRecord) validate(next LayerID) error {
	names := max(len(l.Volume), len(l.Snapshot), len(l.Of))
	switch {
	case l.ID < 1 || l.ID >= next || l.MergedInto >= next || l.MergedInto == l.ID:
		return fmt.Errorf("layer %d, merged into %d, before %d: %w", l.ID, l.MergedInto, next, ErrFormat)
	case l.MergedInto != 0 && (l.Parent != 0 || l.SizeBlocks != 0 || names > 0 || l.CreatedUnixNS != 0 || l.Removed || l.Leaves != nil):
		return fmt.Errorf("layer %d is merged and not empty: %w", l.ID, ErrFormat)
	case l.Parent >= l.ID:
		return fmt.Errorf("layer %d on layer %d: %w", l.ID, l.Parent, ErrFormat)
	case l.SizeBlocks > uint64(MaxBlock):
		return fmt.Errorf("layer %d of %d blocks: %w", l.ID, l.SizeBlocks, ErrFormat)
	case names > MaxNameBytes || l.Volume != "" && l.Snapshot != "" || (l.Snapshot == "") != (l.Of == ""):
		return fmt.Errorf("layer %d of volume %q, snapshot %q of %q: %w", l.ID, l.Volume, l.Snapshot, l.Of, ErrFormat)
	}
	for i, leaf := range l.Leaves {
		if uint64(leaf.Index) >= maxLeaves || i > 0 && leaf.Index <= l.Leaves[i-1].Index || !leaf.At.Mapped() {
			return fmt.Errorf("layer %d: leaf %d at %#x: %w", l.ID, leaf.Index, uint64(leaf.At), ErrFormat)
		}
	}
	return nil
}

// validateTree checks what layers say of each other.
func (m *Manifest) validateTree() error {
	merged := map[LayerID]LayerID{} // layers, and 0 or what they are merged into
	volumes := map[string]bool{}
	for i := range m.Layers {
		l := &m.Layers[i]
		if _, twice := merged[l.ID]; twice {
			return fmt.Errorf("layer %d twice: %w", l.ID, ErrFormat)
		}
		merged[l.ID] = l.MergedInto
		if l.Volume != "" && !l.Removed {
			if volumes[l.Volume] {
				return fmt.Errorf("layer %d of volume %q, which has another: %w", l.ID, l.Volume, ErrFormat)
			}
			volumes[l.Volume] = true
		}
	}
	for i := range m.Layers {
		l := &m.Layers[i]
		if into, there := merged[l.Parent]; l.Parent != 0 && (!there || into != 0) {
			return fmt.Errorf("layer %d on layer %d, which is gone: %w", l.ID, l.Parent, ErrFormat)
		}
	}
	return validateMerged(merged)
}

// validateMerged finds circles.
func validateMerged(merged map[LayerID]LayerID) error {
	ends := map[LayerID]bool{}
	for id := range merged {
		steps := 0
		for at := id; at != 0 && !ends[at]; at = merged[at] {
			if steps++; steps > len(merged)+1 {
				return fmt.Errorf("layer %d is merged into itself: %w", id, ErrFormat)
			}
		}
		for at := id; at != 0 && !ends[at]; at = merged[at] {
			ends[at] = true
		}
	}
	return nil
}

// Fits returns ErrFormat if the manifest is not of a log with this superblock.
func (m *Manifest) Fits(super *Super) error {
	g := super.Geometry
	for i := range m.Segments {
		s := &m.Segments[i]
		if int(s.Columns) > g.Columns() || uint64(s.Live) > uint64(s.Columns)*uint64(g.DataShards) {
			return fmt.Errorf("segment %d with %d columns of %d, %d blocks live: %w", s.ID, s.Columns, g.Columns(), s.Live, ErrFormat)
		}
		if err := super.holds(s.ID, s.Shards); err != nil {
			return err
		}
	}
	for i := range m.Streams {
		s := &m.Streams[i]
		if int(s.Column) > g.Columns() {
			return fmt.Errorf("stream %d in column %d of %d: %w", i, s.Column, g.Columns(), ErrFormat)
		}
		if s.Next == NoSegment {
			continue
		}
		if err := super.holds(s.Next, s.NextShards); err != nil {
			return err
		}
	}
	for _, place := range m.Younger {
		if err := super.holds(place.ID, place.Shards); err != nil {
			return err
		}
	}
	return nil
}

// holds checks that there are such a segment, and slots for its shards.
func (s *Super) holds(id SegmentID, shards []ShardRecord) error {
	if len(shards) != s.Geometry.Shards() {
		return fmt.Errorf("segment %d with %d shards of %d: %w", id, len(shards), s.Geometry.Shards(), ErrFormat)
	}
	for _, at := range shards {
		if at.Disk != NoDisk && (int(at.Disk) >= len(s.Disks) || at.Slot >= s.Disks[at.Disk].Slots) {
			return fmt.Errorf("segment %d on disk %d, slot %d: %w", id, at.Disk, at.Slot, ErrFormat)
		}
	}
	return s.Geometry.fits(id)
}

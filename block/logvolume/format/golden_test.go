package format

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files")

// goldens have something in every field. They stay as they are: they are what
// version 1 has written.
var goldens = map[string]any{
	"super":    goldenSuper,
	"row":      goldenRow,
	"record":   goldenRecord,
	"manifest": goldenManifest,
	"leaf":     &[LeafEntries]Entry{NewEntry(1, 0xfedcba98), Unmapped, Hole, 511: NewEntry(MaxLocation-1, 1)},
	"index":    []Entry{NewEntry(0x123456789, 0x0abcdef0), NewEntry(2, 3)},
}

var (
	goldenLog    = LogID{'l', 'o', 'g', 15: 1}
	goldenShards = []ShardRecord{{Disk: 2, Slot: 0x01020304}, {Disk: NoDisk}, {Disk: 0, Slot: 7, Stale: true}}
)

var goldenSuper = &Super{
	Log: goldenLog, Disk: DiskID{'b'}, Generation: 0x0102030405060708, Epoch: 5,
	Geometry: Geometry{DataShards: 2, ParityShards: 1, ShardBytes: 1 << 20, StripeBytes: 1 << 18, JournalBytes: 3 << 20},
	Disks: []DiskRecord{{ID: DiskID{'a'}, Slots: 100}, {ID: DiskID{'b'}, State: DiskOut, Slots: 101},
		{ID: DiskID{'c'}, State: DiskFilling, Slots: 0xfffffffe}},
	Root: Root{Row: 77, ManifestBytes: 512*BlockBytes + 1, Index: []Entry{NewEntry(10, 0x01234567), NewEntry(11, 0x089abcde)},
		Segments: []PlaceRecord{{ID: 3, Shards: []ShardRecord{{Disk: 2, Slot: 9}, {Disk: NoDisk}, {Disk: 0, Slot: 7, Stale: true}}}}},
}

var goldenRow = &Row{
	Log: goldenLog, Epoch: 5, Number: 0x0102030405060708, Stream: Meta, Segment: 9, Column: 16, Columns: 8, Next: 12, NextShards: goldenShards,
	Sequence: 1 << 40, Durable: 1 << 32,
	Extents: []Extent{
		{Kind: KindData, Layer: 0xfffffffe, Start: uint64(MaxBlock) - 2, Count: 2},
		{Kind: KindHole, Layer: 1, Start: 0, Count: 1<<32 - 1},
		{Kind: KindLeaf, Layer: 2, Start: 3, Count: 1},
		{Kind: KindManifest, Start: 4, Count: 2},
		{Kind: KindIndex, Start: 0, Count: 1},
	},
	Sums: []uint32{0x01020304, 0x05060708, 9, 10, 11, 0xffffffff},
}

var goldenRecord = &Record{
	Log: goldenLog, Epoch: 5, After: 1 << 40, Through: 1<<40 + 3,
	Extents: []Extent{{Kind: KindData, Layer: 3, Start: 0x0102030405, Count: 1}, {Kind: KindHole, Layer: 3, Start: 8, Count: 100}},
	Sums:    []uint32{0xdeadbeef},
}

var goldenManifest = &Manifest{
	Disks:   []DiskID{{'a'}, {'b'}, {'c'}},
	Younger: []PlaceRecord{{ID: 13, Shards: goldenShards}},
	Row:     77, Sequence: 1<<40 + 3, NextLayer: 300,
	Layers: []LayerRecord{
		{ID: 1, SizeBlocks: uint64(MaxBlock), Snapshot: "monday", Of: "home", CreatedUnixNS: 1767323045000000006,
			Leaves: []LeafRecord{{0, NewEntry(1000, 0x01234567)}, {1, NewEntry(1001, 2)}, {LeafIndex(maxLeaves - 1), NewEntry(3, 0x0fffffff)}}},
		{ID: 2, Parent: 1, SizeBlocks: 1, CreatedUnixNS: -1, Removed: true},
		{ID: 3, MergedInto: 299},
		{ID: 299, Parent: 2, SizeBlocks: 1 << 20, Volume: "home"},
	},
	Segments: []SegmentRecord{
		{ID: 0, Stream: Cold, Sealed: true, Columns: 256, Live: 500, Written: 1 << 39, SealedAt: 1<<39 + 7, Shards: goldenShards},
		{ID: 9, Stream: Meta, Columns: 24, Live: 1, Written: 1<<40 + 3, Shards: goldenShards},
	},
	Streams: [StreamCount]StreamRecord{
		Hot:  {Segment: NoSegment, Next: NoSegment},
		Warm: {Segment: NoSegment, Next: NoSegment},
		Cold: {Segment: NoSegment, Next: 10, NextShards: goldenShards},
		Meta: {Segment: 9, Column: 24, Next: 12, NextShards: goldenShards},
	},
	Counters: Counters{UserWritten: 1, HotWritten: 2, ColdWritten: 3, MetaWritten: 4, JournalWritten: 5, ParityWritten: 1 << 60},
}

// TestGoldenFiles compares with what each version has written, and reads that.
// The files are hexadecimal, 32 bytes to a line; lines of zeros are left out.
func TestGoldenFiles(t *testing.T) {
	for _, c := range codecs {
		t.Run(c.name, func(t *testing.T) {
			value := goldens[c.name]
			file := filepath.Join("testdata", c.name+"-1.golden")
			text := dump(c.encode(value))
			if *update {
				check(t, os.WriteFile(file, []byte(text), 0o644))
			}
			golden, err := os.ReadFile(file)
			check(t, err)
			if diff := cmp.Diff(string(golden), text); diff != "" {
				t.Errorf("%s: %s", file, diff)
			}
			got, err := c.decode(undump(t, string(golden)))
			check(t, err)
			if diff := cmp.Diff(value, got); diff != "" {
				t.Errorf("%s: %s", file, diff)
			}
		})
	}
}

const dumpLine = 32

func dump(b []byte) string {
	text := fmt.Sprintf("%d bytes\n", len(b))
	for at := 0; at < len(b); at += dumpLine {
		line := b[at:min(at+dumpLine, len(b))]
		if string(line) != string(make([]byte, len(line))) {
			text += fmt.Sprintf("%06x %s\n", at, hex.EncodeToString(line))
		}
	}
	return text
}

func undump(t *testing.T, text string) []byte {
	t.Helper()
	var b []byte
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		var at int
		var content []byte
		if i == 0 {
			_, err := fmt.Sscanf(line, "%d bytes", &at)
			check(t, err)
			b = make([]byte, at)
			continue
		}
		_, err := fmt.Sscanf(line, "%x %x", &at, &content)
		check(t, err)
		copy(b[at:], content)
	}
	return b
}

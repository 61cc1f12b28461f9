package format

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// documented are the offsets in the tables of docs/format/log-volume.md.
var documented = map[string][]int{
	"Head": {0, headVersionAt, headLengthAt, headSumAt, headPrefixSumAt},
	"Superblock": {0, superLogAt, superDiskAt, superGenerationAt, superEpochAt, superDataShardsAt, superParityShardsAt, superShardBytesAt,
		superStripeBytesAt, superJournalBytesAt, superRowAt, superManifestBytesAt, superDiskCountAt, superIndexCountAt, superPlaceCountAt,
		superZerosAt, superDisksAt, superIndexAt, superPlacesAt, superTailAt},
	"Disk in a superblock": {0, diskSlotsAt, diskStateAt, diskZerosAt},
	"Place":                {0, 4, placeHeadBytes},
	"Shard":                {0, 1, 2, shardSlotAt},
	"Row": {0, rowLogAt, rowEpochAt, rowNumberAt, rowSequenceAt, rowDurableAt, rowSegmentAt, rowColumnAt, rowColumnsAt, rowNextAt,
		rowExtentCountAt, rowSumCountAt, rowStreamAt, rowNextShardsAt, rowPrefixZerosAt, rowPrefixBytes},
	"Extent": {0, 1, extentStartBit / 8, 8, 8 + extentCountBit/8},
	"Journal record": {0, recordLogAt, recordEpochAt, recordAfterAt, recordThroughAt, recordExtentCountAt, recordSumCountAt,
		recordPrefixZerosAt, recordPrefixBytes},
	"Manifest": {0, manifestRowAt, manifestSequenceAt, manifestCountersAt, manifestNextLayerAt, manifestLayerCountAt,
		manifestSegmentCountAt, manifestShardCountAt, manifestDiskCountAt, manifestYoungerCountAt, manifestZerosAt, manifestHeaderBytes},
}

// documentedEnds are where those tables end that have an end.
var documentedEnds = map[string]int{
	"Head": headBytes, "Superblock": BlockBytes, "Disk in a superblock": diskBytes, "Shard": shardBytes, "Extent": extentBytes,
}

// TestDocumentHasTheOffsets also checks that fields follow each other without gaps.
func TestDocumentHasTheOffsets(t *testing.T) {
	text, err := os.ReadFile("../../../docs/format/log-volume.md")
	check(t, err)
	found, section, end := map[string][]int{}, "", 0
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && line[0] == '#' {
			section, end = strings.TrimSpace(name), 0
		}
		cells := strings.Split(line, "|")
		if len(cells) != 5 || documented[section] == nil {
			continue
		}
		at, err := strconv.Atoi(strings.TrimSpace(cells[1]))
		if err != nil {
			continue
		}
		if at != end {
			t.Errorf("%s: a field ends at %d, the next one is at %d", section, end, at)
		}
		length, err := strconv.Atoi(strings.TrimSpace(cells[2]))
		end = at + length
		found[section] = append(found[section], at)
		if want, ok := documentedEnds[section]; ok && err == nil && len(found[section]) == len(documented[section]) && end != want {
			t.Errorf("%s ends at %d, not %d", section, end, want)
		}
	}
	for section, want := range documented {
		if !slices.Equal(found[section], want) {
			t.Errorf("%s: offsets %v, in the code %v", section, found[section], want)
		}
	}
}

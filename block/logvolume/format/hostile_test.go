package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"runtime"
	"testing"
)

// strict decodes bytes from anywhere. What is not refused must be just what the
// encoder would have written.
func (c *codec) strict(t *testing.T, b []byte) {
	t.Helper()
	v, err := c.decode(b)
	if err != nil {
		if !errors.Is(err, ErrFormat) {
			t.Fatalf("%s: %v is not ErrFormat", c.name, err)
		}
		return
	}
	if again := c.encode(v); len(again) > len(b) || !bytes.Equal(again, b[:len(again)]) {
		t.Fatalf("%s: %+v is encoded otherwise", c.name, v)
	}
}

// TestOnlyOneEncoding changes each byte that is not zero, and some that are, and makes
// the checksums right again.
func TestOnlyOneEncoding(t *testing.T) {
	for _, c := range codecs {
		b := c.encode(goldens[c.name])
		for i, was := range b {
			if was == 0 && i > 512 && i%61 != 0 {
				continue
			}
			for _, v := range []byte{0, 1, 2, 3, 0x7f, 0x80, 0xff, was ^ 1, was ^ 0x80, was + 1, was - 1} {
				b[i] = v
				c.seal(b)
				c.strict(t, b)
			}
			b[i] = was
		}
		c.seal(b)
		if _, err := c.decode(b); err != nil {
			t.Errorf("%s, as it was: %v", c.name, err)
		}
	}
}

// TestReservedBytesAreZero sets each of them, with right checksums.
func TestReservedBytesAreZero(t *testing.T) {
	row, record := goldenRow.headerBytes(), goldenRecord.headerBytes()
	reserved := map[string][][2]int{
		"super": {{headPrefixSumAt, headBytes}, {superZerosAt, superDisksAt}, {superDisksAt + diskZerosAt, superDisksAt + diskBytes},
			{superDisksAt + 3*diskBytes, superIndexAt}, {superIndexAt + 2*entryBytes, superPlacesAt}, {superPlacesAt + 4, superPlacesAt + placeHeadBytes},
			{superPlacesAt + placeHeadBytes + 3*shardBytes, BlockBytes}},
		"row": {{rowPrefixZerosAt, rowPrefixBytes}, {rowPrefixBytes + 2, rowPrefixBytes + shardSlotAt},
			{rowPrefixBytes + 3*shardBytes + 1, rowPrefixBytes + 3*shardBytes + 3}, {int(row), BlockBytes}},
		"record":   {{recordPrefixZerosAt, recordPrefixBytes}, {recordPrefixBytes + 1, recordPrefixBytes + 3}, {int(record), BlockBytes}},
		"manifest": {{headPrefixSumAt, headBytes}, {manifestZerosAt, manifestHeaderBytes}},
	}
	for _, c := range checked {
		b := c.encode(goldens[c.name])
		for _, r := range reserved[c.name] {
			for i := r[0]; i < r[1]; i++ {
				if b[i] != 0 {
					t.Fatalf("%s: byte %d is %d", c.name, i, b[i])
				}
				b[i] = 1
				c.seal(b)
				if _, err := c.decode(b); !errors.Is(err, ErrFormat) {
					t.Errorf("%s with byte %d set: %v", c.name, i, err)
				}
				b[i] = 0
			}
		}
	}
}

// TestCountsAreCheckedFirst claims more than there is.
func TestCountsAreCheckedFirst(t *testing.T) {
	const most = 64 << 10
	tests := []struct {
		codec   string
		counter int
		value   uint32
		length  uint32 // 0: as it was
	}{
		{"super", superDiskCountAt, math.MaxUint32, 0},
		{"super", superIndexCountAt, math.MaxUint32, 0},
		{"super", superIndexCountAt, MaxRootIndex + 1, 0},
		{"super", superPlaceCountAt, math.MaxUint32, 0},
		{"super", superPlaceCountAt, MaxRootSegments + 1, 0},
		{"super", superDataShardsAt, math.MaxUint32, 0},
		{"row", rowExtentCountAt, math.MaxUint32, 0},
		{"row", rowSumCountAt, math.MaxUint32, 0},
		{"row", rowExtentCountAt, 1 << 27, rowPrefixBytes + 3*shardBytes + 1<<27*extentBytes + 6*extentSumsBytes},
		{"row", rowSumCountAt, 1 << 20, rowPrefixBytes + 3*shardBytes + 5*extentBytes + 1<<20*extentSumsBytes},
		{"record", recordExtentCountAt, math.MaxUint32, 0},
		{"record", recordSumCountAt, 1 << 29, recordPrefixBytes + 2*extentBytes + 1<<29*extentSumsBytes},
		{"manifest", manifestLayerCountAt, math.MaxUint32, 0},
		{"manifest", manifestLayerCountAt, 1000, 0},
		{"manifest", manifestSegmentCountAt, math.MaxUint32, 0},
		{"manifest", manifestShardCountAt, math.MaxUint32, 0},
		{"manifest", manifestShardCountAt, 0, 0},
		{"manifest", headLengthAt, math.MaxUint32, math.MaxUint32},
	}
	for _, test := range tests {
		c := byName(test.codec)
		b := c.encode(goldens[c.name])
		binary.LittleEndian.PutUint32(b[test.counter:], test.value)
		if test.length > 0 {
			binary.LittleEndian.PutUint32(b[headLengthAt:], test.length)
		}
		c.seal(b)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := c.decode(b)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrFormat) {
			t.Errorf("%s with %d at %d: %v", c.name, test.value, test.counter, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > most {
			t.Errorf("%s with %d at %d: %d bytes allocated", c.name, test.value, test.counter, n)
		}
	}
}

func byName(name string) *codec {
	for i := range codecs {
		if codecs[i].name == name {
			return &codecs[i]
		}
	}
	panic(name)
}

// fuzz wants -fuzzminimizetime 1x, else go test makes blocks shorter all the time.
func fuzz(f *testing.F, name string) {
	c := byName(name)
	f.Add(c.encode(goldens[name]))
	for seed := range uint64(3) {
		b := c.encode(c.example(newExamples(seed)))
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c.strict(t, b)
		b = bytes.Clone(b)
		c.seal(b)
		c.strict(t, b)
	})
}

func FuzzSuper(f *testing.F)    { fuzz(f, "super") }
func FuzzRow(f *testing.F)      { fuzz(f, "row") }
func FuzzRecord(f *testing.F)   { fuzz(f, "record") }
func FuzzManifest(f *testing.F) { fuzz(f, "manifest") }
func FuzzLeaf(f *testing.F)     { fuzz(f, "leaf") }
func FuzzIndex(f *testing.F)    { fuzz(f, "index") }

package format

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// codec is one structure, for tests that all of them pass.
type codec struct {
	name    string
	example func(x examples) any
	encode  func(v any) []byte
	decode  func(b []byte) (any, error)
	layout  *layout // nil for those without a checksum of their own
}

// seal makes the checksums right, as far as there is what they cover.
func (c *codec) seal(b []byte) {
	if c.layout == nil || len(b) < max(headBytes, c.layout.prefixBytes) {
		return
	}
	if n := blocks(uint64(counted(b, headLengthAt))) * BlockBytes; c.layout.prefixBytes > 0 && n < len(b) {
		b = b[:max(n, c.layout.prefixBytes)]
	}
	c.layout.finish(b)
}

var codecs = []codec{
	{"super", func(x examples) any { return x.super() }, func(v any) []byte { return v.(*Super).Encode() },
		func(b []byte) (any, error) { return result(DecodeSuper(b)) }, &superLayout},
	{"row", func(x examples) any { return x.row() }, func(v any) []byte { return encoded(v.(*Row)) },
		func(b []byte) (any, error) { return result(DecodeRow(b)) }, &rowLayout},
	{"record", func(x examples) any { return x.record() }, func(v any) []byte { return encoded(v.(*Record)) },
		func(b []byte) (any, error) { return result(DecodeRecord(b)) }, &recordLayout},
	{"manifest", func(x examples) any { return x.manifest() }, func(v any) []byte { return v.(*Manifest).Encode() },
		func(b []byte) (any, error) { return result(DecodeManifest(b)) }, &manifestLayout},
	{"leaf", func(x examples) any { return x.leaf() }, encodedLeaf, decodedLeaf, nil},
	{"index", func(x examples) any { return x.entries(x.IntN(LeafEntries + 1)) }, encodedIndex, decodedIndex, nil},
}

// checked are those with a checksum of their own.
var checked = codecs[:len(codecs)-2]

// result hides values that come with an error.
func result[T any](v T, err error) (any, error) { return v, err }

// dirty is memory that was used before.
func dirty(blocks int) []byte {
	b := make([]byte, blocks*BlockBytes)
	for i := range b {
		b[i] = 0xa5
	}
	return b
}

func encoded(r interface {
	HeaderBlocks() int
	EncodeTo(b []byte)
}) []byte {
	b := dirty(r.HeaderBlocks())
	r.EncodeTo(b)
	return b
}

func encodedLeaf(v any) []byte {
	b := dirty(1)
	EncodeLeaf(b, v.(*[LeafEntries]Entry))
	return b
}

func decodedLeaf(b []byte) (any, error) {
	var leaf [LeafEntries]Entry
	err := DecodeLeaf(b, &leaf)
	return &leaf, err
}

func encodedIndex(v any) []byte {
	b := dirty(1)
	EncodeIndex(b, v.([]Entry))
	return b
}

// decodedIndex looks how many entries there are; readers know that from the
// length of the manifest.
func decodedIndex(b []byte) (any, error) {
	n := 0
	for n < min(len(b)/entryBytes, LeafEntries) && [entryBytes]byte(b[n*entryBytes:]) != [entryBytes]byte{} {
		n++
	}
	var entries []Entry
	if n > 0 {
		entries = make([]Entry, n)
	}
	err := DecodeIndex(b, entries)
	return entries, err
}

func TestWhatWasWrittenIsRead(t *testing.T) {
	for _, c := range codecs {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(200) {
				want := c.example(newExamples(seed))
				got, err := c.decode(c.encode(want))
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("seed %d: %s", seed, diff)
				}
			}
		})
	}
}

// TestDamageIsFound flips each bit, and cuts at each length.
func TestDamageIsFound(t *testing.T) {
	for _, c := range checked {
		t.Run(c.name, func(t *testing.T) {
			b := c.encode(c.example(newExamples(2)))
			for bit := range len(b) * 8 {
				b[bit/8] ^= 1 << (bit % 8)
				if v, err := c.decode(b); !errors.Is(err, ErrFormat) {
					t.Errorf("bit %d flipped: %v, %v", bit, v, err)
				}
				b[bit/8] ^= 1 << (bit % 8)
			}
			for n := range b {
				if v, err := c.decode(b[:n]); !errors.Is(err, ErrFormat) {
					t.Errorf("cut to %d: %v, %v", n, v, err)
				}
			}
			if _, err := c.decode(b); err != nil {
				t.Errorf("undamaged: %v", err)
			}
		})
	}
}

func TestOtherVersionsAreRefused(t *testing.T) {
	for _, c := range checked {
		b := c.encode(c.example(newExamples(1)))
		b[headVersionAt]++
		if _, err := c.decode(b); !errors.Is(err, ErrVersion) || !errors.Is(err, ErrFormat) {
			t.Errorf("%s of another version: %v", c.name, err)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

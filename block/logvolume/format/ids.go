package format

import (
	"encoding/hex"
	"errors"
)

// ErrFormat is what all decoding errors match: these bytes are not what they should be.
var ErrFormat = errors.New("not a valid structure of a log volume")

// ErrVersion is for structures of another version. It matches ErrFormat too.
var ErrVersion error = versionError{}

type versionError struct{}

func (versionError) Error() string        { return "written by another version of torpor" }
func (versionError) Is(target error) bool { return target == ErrFormat }

// LogID names a log for ever; it is random.
type LogID [16]byte

func (id LogID) String() string { return hex.EncodeToString(id[:]) }

// DiskID names a disk of a log for ever; it is random.
type DiskID [16]byte

func (id DiskID) String() string { return hex.EncodeToString(id[:]) }

// SegmentID numbers the segments of a log from 0. Numbers are used again.
type SegmentID uint32

// NoSegment is no segment's number.
const NoSegment SegmentID = 0xffffffff

// LayerID numbers the layers of a log from 1. Numbers are not used again.
type LayerID uint32

// Block is a block number of a volume: offset / 4096. It is below MaxBlock.
type Block uint64

// MaxBlock bounds block numbers: 2^40 blocks are 4 PiB.
const MaxBlock Block = 1 << 40

// LeafIndex numbers the leaves of a layer: block / LeafEntries.
type LeafIndex uint32

// LeafEntries is how many blocks a leaf maps.
const LeafEntries = 512

// RowNumber numbers the rows of a log from 1, over all streams and epochs.
type RowNumber uint64

// Sequence numbers the changes of a log from 1, in the order in which they were acknowledged.
type Sequence uint64

// WriteTime is a time, counted in blocks that users wrote since the log was created.
type WriteTime uint64

// Epoch counts recoveries.
type Epoch uint64

// Generation counts how often the superblocks were written.
type Generation uint64

// Stream is a kind of row.
type Stream uint8

// Streams.
const (
	Hot         Stream = iota // written by users
	Warm                      // moved once by the cleaner
	Cold                      // moved more often
	Meta                      // the map
	StreamCount = 4
)

func (s Stream) String() string { return [...]string{"hot", "warm", "cold", "meta"}[s] }

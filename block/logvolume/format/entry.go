package format

// Location names a block of the log: segment * blocks of a segment's data
// shards + shard * blocks of a shard + column. It is below 2^36 - 1. The
// location 0 is never one of data: a row header is there.
type Location uint64

// MaxLocation bounds locations: 2^36 blocks are 256 TiB.
const MaxLocation Location = 1<<36 - 1

// Entry is what the map holds for a block: the location in the lower 36 bits,
// and in the upper 28 the lower 28 of the CRC32C of its content.
type Entry uint64

// Unmapped entries leave the block to the layer below, or to zeros.
const Unmapped Entry = 0

// Hole entries say that the block reads as zeros whatever the layer below says.
const Hole = Entry(MaxLocation)

// NewEntry maps a block to a location.
func NewEntry(at Location, crc uint32) Entry { return Entry(at) | Entry(crc)<<36 }

// Location of a mapped block.
func (e Entry) Location() Location { return Location(e) & MaxLocation }

// Mapped says whether the entry has a location.
func (e Entry) Mapped() bool { return e.Location() != 0 && e.Location() != MaxLocation }

// maxSum bounds what an entry holds of a CRC32C.
const maxSum = 1<<28 - 1

// sum is the lower 28 bits of the content's CRC32C.
func (e Entry) sum() uint32 { return uint32(e >> 36) }

// Matches compares a content's CRC32C with the entry's 28 bits of it.
func (e Entry) Matches(crc uint32) bool { return e.sum() == crc&maxSum }

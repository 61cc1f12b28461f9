package format

// DiskState says what a disk is good for.
type DiskState uint8

// States of a disk.
//
//	up --failed write or flush, missing--> out --replaced--> (gone)
//	up <--rebuild done-- filling <--added
const (
	DiskUp      DiskState = iota // holds all its shards
	DiskOut                      // is not used; what it holds may be stale
	DiskFilling                  // takes new shards; is being filled with older ones
)

func (s DiskState) String() string { return [...]string{"up", "out", "filling"}[s] }

// DiskRecord is one disk in the superblock.
type DiskRecord struct {
	ID    DiskID
	State DiskState
	Slots uint32
}

// Root says where the newest checkpoint is. The manifest's bytes are in blocks
// of the log, whose entries are in blocks of entries (512 each), and those are
// listed here.
type Root struct {
	Row           RowNumber // rows from here on are to be replayed; 0: there is no checkpoint yet
	ManifestBytes uint64
	Index         []Entry // at most MaxRootIndex
	// Segments are those that hold the index and the manifest, which says where
	// all others are. At most MaxRootSegments.
	Segments []PlaceRecord
}

// PlaceRecord says where the shards of a segment are, as many as the geometry has.
type PlaceRecord struct {
	ID     SegmentID
	Shards []ShardRecord
}

// MaxRootSegments bounds Root.Segments.
const MaxRootSegments = 5

// MaxRootIndex bounds Root.Index.
const MaxRootIndex = 96

// Super is a superblock, one block long. The one with the highest generation
// among the disks of a log is the right one.
type Super struct {
	Log        LogID
	Disk       DiskID // whose this copy is
	Generation Generation
	Epoch      Epoch
	Geometry   Geometry
	Disks      []DiskRecord // at most MaxDisks; includes Disk
	Root       Root
}

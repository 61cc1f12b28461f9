package block

// BlockBytes is the unit of checksums, maps and direct I/O everywhere here.
const BlockBytes = 4096

// Offset is a distance in bytes from the start of a device.
type Offset int64

// Range is a piece of a device.
type Range struct {
	Start    Offset
	LenBytes int64
}

// End is the first offset behind the range.
func (r Range) End() Offset { return r.Start + Offset(r.LenBytes) }

// Flags change what a write, zero or discard promises.
type Flags uint8

const (
	// FUA: what this call wrote is durable when it returns. It says nothing
	// about other writes.
	FUA Flags = 1 << iota
	// KeepAllocated, of Zero: space should stay reserved. Thin devices ignore it.
	KeepAllocated
	// FastOnly, of Zero: fail with ErrUnsupported at once if zeroing would take
	// as long as writing.
	FastOnly
)

// Kind says what is known of a range.
type Kind uint8

const (
	// Data may hold anything.
	Data Kind = iota
	// Hole holds no space and reads as zeros.
	Hole
	// Zero holds space and reads as zeros.
	Zero
)

// Extent is a range and its kind.
type Extent struct {
	Range
	Kind Kind
}

// Info says what a device is. SizeBytes may grow or shrink while a device is
// open; the rest stays.
type Info struct {
	SizeBytes int64
	// BlockBytes is the granularity: offsets and lengths are multiples of it.
	// It is a power of two.
	BlockBytes int
	// PreferredBytes is a length, a multiple of BlockBytes, from which on writes
	// are as cheap as they get.
	PreferredBytes int
	// ReadOnly devices refuse everything that changes them, with ErrReadOnly.
	ReadOnly bool
	// Volatile devices keep completed writes in a cache until Flush.
	Volatile bool
	// Discards: Discard gives space back.
	Discards bool
}

// Device is a block device.
//
// All methods may be called from any number of goroutines at once. Buffers are
// borrowed until the call returns. Ranges must lie within the device
// (ErrRange) and be multiples of Info.BlockBytes (ErrAlignment); an empty one
// does nothing. A request is whole or an error: after an error of a change,
// each block of its range holds its old or its new content until it is
// changed again.
//
// Order: a read sees every change that returned before the read was called. Of
// changes of the same block that overlap in time any may come last, block by
// block. Durability: Flush makes durable all changes that returned before it
// was called; FUA those of its own call. After a crash each block that was
// changed since holds one of the contents it had since, whole; which one is
// chosen for each block on its own, unless a device promises more.
//
// An error of Flush is not forgotten: what it was about stays not durable, so
// Flush fails until the device is opened again, or has written it elsewhere.
//
// Requests take no context: what was handed to a disk can not be taken back.
// Time-outs are the device's own.
type Device interface {
	Info() Info
	// ReadAt fills p. Errors: ErrCorrupt for content that is known to be wrong
	// and can not be made right, which leaves p undefined.
	ReadAt(p []byte, off Offset) error
	// WriteAt writes p. Errors: ErrNoSpace of thin devices.
	WriteAt(p []byte, off Offset, flags Flags) error
	// Zero makes a range read as zeros.
	Zero(r Range, flags Flags) error
	// Discard says that a range is not needed any more. Afterwards it reads as
	// zeros if Info.Discards, else as anything it held, or zeros.
	Discard(r Range, flags Flags) error
	Flush() error
	// Status describes a range by extents in order, without gaps; neighbours
	// may have the same kind. Data is always a right answer.
	Status(r Range) ([]Extent, error)
	// Close ends the device, flushed. It waits for other calls; later ones fail
	// with ErrClosed.
	Close() error
}

// VectorDevice is a Device that reads and writes scattered memory in one
// request. The length of each buffer is a multiple of Info.BlockBytes.
type VectorDevice interface {
	Device
	ReadVectorAt(p [][]byte, off Offset) error
	WriteVectorAt(p [][]byte, off Offset, flags Flags) error
}

// AsyncReader is a Device whose reads need no goroutine that waits for them.
type AsyncReader interface {
	Device
	// StartRead is ReadAt that calls done with its result, once, maybe before it
	// returns. p is borrowed until then. Other reads may have to wait for done, so
	// it must return soon.
	StartRead(p []byte, off Offset, done func(error))
}

// AsyncWriter is a Device whose writes need no goroutine that waits for them.
type AsyncWriter interface {
	Device
	// StartWrite is WriteVectorAt that calls done with its result, once, maybe
	// before it returns. p is borrowed until then. Other writes may have to wait for
	// done, so it must return soon.
	StartWrite(p [][]byte, off Offset, flags Flags, done func(error))
}

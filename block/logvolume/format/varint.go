package format

import (
	"encoding/binary"
	"math"
)

// Varints are those of protocol buffers, in their shortest form; signed ones
// are zigzag. Strings follow their length.

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// cursor reads bytes from front to end. Once something was not there, all that
// is read is zero, and failed is true.
type cursor struct {
	rest   []byte
	failed bool
}

func (c *cursor) fail() {
	c.rest, c.failed = nil, true
}

func (c *cursor) byte() byte {
	if len(c.rest) < 1 {
		c.fail()
		return 0
	}
	v := c.rest[0]
	c.rest = c.rest[1:]
	return v
}

func (c *cursor) uint32() uint32 {
	if len(c.rest) < 4 {
		c.fail()
		return 0
	}
	v := binary.LittleEndian.Uint32(c.rest)
	c.rest = c.rest[4:]
	return v
}

// varint fails for values above limit, too.
func (c *cursor) varint(limit uint64) uint64 {
	if len(c.rest) > 0 && c.rest[0] < 0x80 && uint64(c.rest[0]) <= limit {
		v := uint64(c.rest[0])
		c.rest = c.rest[1:]
		return v
	}
	v, n := binary.Uvarint(c.rest)
	if n <= 0 || n > 1 && c.rest[n-1] == 0 || v > limit {
		c.fail()
		return 0
	}
	c.rest = c.rest[n:]
	return v
}

func (c *cursor) signed() int64 {
	v := c.varint(math.MaxUint64)
	return int64(v>>1) ^ -int64(v&1)
}

func (c *cursor) string(limit int) string {
	n := int(c.varint(uint64(limit)))
	if n > len(c.rest) {
		c.fail()
		return ""
	}
	s := string(c.rest[:n])
	c.rest = c.rest[n:]
	return s
}

// count reads how many elements follow, of which each takes at least so many bytes.
func (c *cursor) count(elementBytes int) int {
	return int(c.varint(uint64(len(c.rest) / elementBytes)))
}

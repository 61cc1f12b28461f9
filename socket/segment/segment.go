package segment

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"torpor/socket"
)

// Flags are the bits of a TCP header's byte 13 (RFC 9293, section 3.1).
type Flags uint8

// The flags that are looked at here.
const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

// Has reports whether all of the flags are set.
func (f Flags) Has(all Flags) bool { return f&all == all }

// Segment is what a packet says of a connection.
type Segment struct {
	socket.Key // Local is the packet's destination; zones are left to the caller

	Seq, Ack  socket.Sequence
	Flags     Flags
	Window    uint16 // not scaled
	DataBytes int    // also those that are not in the copy

	HasTimestamps   bool // the option is there, with:
	Timestamp, Echo uint32
}

// next is the sequence number behind the segment.
func (s *Segment) next() socket.Sequence {
	n := s.Seq + socket.Sequence(s.DataBytes)
	if s.Flags.Has(SYN) {
		n++
	}
	if s.Flags.Has(FIN) {
		n++
	}
	return n
}

// What a packet is that has no segment to read.
var (
	ErrNotTCP    = errors.New("not a TCP segment")
	ErrFragment  = errors.New("a fragment")
	ErrTruncated = errors.New("headers are cut off")
	ErrMalformed = errors.New("lengths contradict each other")
)

const (
	headerBytes    = 20 // of TCP without options
	protoTCP       = 6
	offsetDataOff  = 12
	optionEnd      = 0
	optionNothing  = 1
	optionStamps   = 8
	stampsBytes    = 10
	flagsOffset    = 13
	windowOffset   = 14
	bytesPerWord   = 4
	ackOffset      = 8
	sequenceOffset = 4
)

// Parse reads a packet of IPv4 or IPv6, or its beginning: lenBytes is how long
// all of it is. Packets that the kernel has joined (GRO) may be longer than
// their header can say. Errors: ErrNotTCP, ErrFragment, ErrTruncated,
// ErrMalformed.
func Parse(packet []byte, lenBytes int) (Segment, error) {
	var s Segment
	if len(packet) == 0 {
		return s, ErrTruncated
	}
	p, err := parseIP(packet, lenBytes)
	if err != nil {
		return s, err
	}
	if err := s.parseTCP(packet[min(p.headerBytes, len(packet)):], p.lenBytes-p.headerBytes); err != nil {
		return Segment{}, err
	}
	s.Local = netip.AddrPortFrom(p.destination, s.Local.Port())
	s.Remote = netip.AddrPortFrom(p.source, s.Remote.Port())
	return s, nil
}

// parseTCP reads what is behind the IP headers; lenBytes counts also what is
// not in the copy.
func (s *Segment) parseTCP(b []byte, lenBytes int) error {
	if len(b) < headerBytes {
		if lenBytes < headerBytes {
			return ErrMalformed
		}
		return ErrTruncated
	}
	dataOffset := int(b[offsetDataOff]>>4) * bytesPerWord
	if dataOffset < headerBytes || dataOffset > lenBytes {
		return ErrMalformed
	}
	s.Remote = netip.AddrPortFrom(netip.Addr{}, binary.BigEndian.Uint16(b))
	s.Local = netip.AddrPortFrom(netip.Addr{}, binary.BigEndian.Uint16(b[2:]))
	s.Seq = socket.Sequence(binary.BigEndian.Uint32(b[sequenceOffset:]))
	s.Ack = socket.Sequence(binary.BigEndian.Uint32(b[ackOffset:]))
	s.Flags = Flags(b[flagsOffset])
	s.Window = binary.BigEndian.Uint16(b[windowOffset:])
	s.DataBytes = lenBytes - dataOffset
	s.parseOptions(b[headerBytes:min(dataOffset, len(b))])
	return nil
}

// parseOptions looks for timestamps. What is broken ends the search, as in
// Linux.
func (s *Segment) parseOptions(b []byte) {
	for len(b) > 0 && b[0] != optionEnd {
		if b[0] == optionNothing {
			b = b[1:]
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			return
		}
		if b[0] == optionStamps && b[1] == stampsBytes {
			s.HasTimestamps = true
			s.Timestamp = binary.BigEndian.Uint32(b[2:])
			s.Echo = binary.BigEndian.Uint32(b[6:])
			return
		}
		b = b[b[1]:]
	}
}

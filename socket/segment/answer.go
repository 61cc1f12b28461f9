package segment

import (
	"encoding/binary"
	"net/netip"

	"torpor/socket"
)

// Answer is an acknowledgement: a segment without data that this end sends.
type Answer struct {
	socket.Key // it goes from Local to Remote

	Seq, Ack     socket.Sequence
	Window       uint16 // scaled down already
	TrafficClass uint8  // or TOS

	Timestamps      bool // add the option, with:
	Timestamp, Echo uint32
}

// AnswerBytes is the length of the longest answer.
const AnswerBytes = v6Bytes + headerBytes + 12

const (
	hopLimit     = 64
	dontFragment = 0x4000
	v4Protocol   = 9
	v4Checksum   = 10
	tcpChecksum  = 16
)

// AppendTo appends the IP packet.
func (a *Answer) AppendTo(b []byte) []byte {
	tcpBytes := headerBytes
	if a.Timestamps {
		tcpBytes += 12
	}
	var packet [AnswerBytes]byte
	ipBytes := v6Bytes
	if a.Local.Addr().Is4() {
		ipBytes = v4Bytes
		a.putV4(packet[:v4Bytes], v4Bytes+tcpBytes)
	} else {
		a.putV6(packet[:v6Bytes], tcpBytes)
	}
	a.putTCP(packet[ipBytes : ipBytes+tcpBytes])
	return append(b, packet[:ipBytes+tcpBytes]...)
}

func (a *Answer) putV4(b []byte, lenBytes int) {
	b[0] = 4<<4 | v4Bytes/bytesPerWord
	b[1] = a.TrafficClass
	binary.BigEndian.PutUint16(b[2:], uint16(lenBytes))
	binary.BigEndian.PutUint16(b[offsetFragment:], dontFragment)
	b[8], b[v4Protocol] = hopLimit, protoTCP
	source, destination := a.Local.Addr().As4(), a.Remote.Addr().As4()
	copy(b[12:], source[:])
	copy(b[16:], destination[:])
	binary.BigEndian.PutUint16(b[v4Checksum:], ^fold(sum(b)))
}

func (a *Answer) putV6(b []byte, lenBytes int) {
	binary.BigEndian.PutUint32(b, 6<<28|uint32(a.TrafficClass)<<20)
	binary.BigEndian.PutUint16(b[4:], uint16(lenBytes))
	b[6], b[7] = protoTCP, hopLimit
	source, destination := a.Local.Addr().As16(), a.Remote.Addr().As16()
	copy(b[8:], source[:])
	copy(b[24:], destination[:])
}

func (a *Answer) putTCP(b []byte) {
	binary.BigEndian.PutUint16(b, a.Local.Port())
	binary.BigEndian.PutUint16(b[2:], a.Remote.Port())
	binary.BigEndian.PutUint32(b[sequenceOffset:], uint32(a.Seq))
	binary.BigEndian.PutUint32(b[ackOffset:], uint32(a.Ack))
	b[offsetDataOff] = byte(len(b)/bytesPerWord) << 4
	b[flagsOffset] = byte(ACK)
	binary.BigEndian.PutUint16(b[windowOffset:], a.Window)
	if a.Timestamps { // padded as Linux does (RFC 7323, appendix A)
		copy(b[headerBytes:], []byte{optionNothing, optionNothing, optionStamps, stampsBytes})
		binary.BigEndian.PutUint32(b[24:], a.Timestamp)
		binary.BigEndian.PutUint32(b[28:], a.Echo)
	}
	binary.BigEndian.PutUint16(b[tcpChecksum:], ^fold(sum(b)+a.pseudo(len(b))))
}

// pseudo is the sum of the pseudo header (RFC 9293, section 3.1).
func (a *Answer) pseudo(lenBytes int) uint32 {
	return sumOf(a.Local.Addr()) + sumOf(a.Remote.Addr()) + protoTCP + uint32(lenBytes)
}

func sumOf(a netip.Addr) uint32 {
	if a.Is4() {
		b := a.As4()
		return sum(b[:])
	}
	b := a.As16()
	return sum(b[:])
}

// sum adds up 16-bit words; b has an even length below 64 KB.
func sum(b []byte) uint32 {
	var n uint32
	for ; len(b) >= 2; b = b[2:] {
		n += uint32(binary.BigEndian.Uint16(b))
	}
	return n
}

func fold(n uint32) uint16 {
	n = n>>16 + n&0xffff
	return uint16(n>>16 + n&0xffff)
}

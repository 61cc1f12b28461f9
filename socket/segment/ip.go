package segment

import (
	"encoding/binary"
	"net/netip"
)

// ip is what the headers before TCP say.
type ip struct {
	source, destination netip.Addr
	headerBytes         int // with options and extension headers
	lenBytes            int // of the packet
}

const (
	v4Bytes = 20 // of the header without options
	v6Bytes = 40

	offsetFragment = 6 // in the header of IPv4
	moreFragments  = 0x2000
	fragmentMask   = 0x1fff
)

func parseIP(b []byte, lenBytes int) (ip, error) {
	switch b[0] >> 4 {
	case 4:
		return parseV4(b, lenBytes)
	case 6:
		return parseV6(b, lenBytes)
	}
	return ip{}, ErrNotTCP
}

func parseV4(b []byte, lenBytes int) (ip, error) {
	if len(b) < v4Bytes {
		return ip{}, ErrTruncated
	}
	p := ip{headerBytes: int(b[0]&0xf) * bytesPerWord, lenBytes: int(binary.BigEndian.Uint16(b[2:]))}
	if p.lenBytes == 0 { // joined to more than 64 KB: BIG TCP
		p.lenBytes = lenBytes
	}
	if p.headerBytes < v4Bytes || p.headerBytes > p.lenBytes || p.lenBytes > lenBytes {
		return ip{}, ErrMalformed
	}
	if binary.BigEndian.Uint16(b[offsetFragment:])&(moreFragments|fragmentMask) != 0 {
		return ip{}, ErrFragment
	}
	if b[9] != protoTCP {
		return ip{}, ErrNotTCP
	}
	p.source = netip.AddrFrom4([4]byte(b[12:]))
	p.destination = netip.AddrFrom4([4]byte(b[16:]))
	return p, nil
}

// Extension headers of IPv6 (RFC 8200, section 4) and IPsec.
const (
	extensionHopByHop    = 0
	extensionRouting     = 43
	extensionFragment    = 44
	extensionAH          = 51
	extensionDestination = 60

	extensionUnit = 8
)

func parseV6(b []byte, lenBytes int) (ip, error) {
	if len(b) < v6Bytes {
		return ip{}, ErrTruncated
	}
	p := ip{headerBytes: v6Bytes, lenBytes: v6Bytes + int(binary.BigEndian.Uint16(b[4:]))}
	if p.lenBytes == v6Bytes { // joined to more than 64 KB: BIG TCP
		p.lenBytes = lenBytes
	}
	if p.lenBytes > lenBytes {
		return ip{}, ErrMalformed
	}
	// Addresses are not unmapped: ::ffff:192.0.2.1 in a packet is a forged one.
	p.source = netip.AddrFrom16([16]byte(b[8:]))
	p.destination = netip.AddrFrom16([16]byte(b[24:]))
	for next := b[6]; next != protoTCP; {
		rest := b[min(p.headerBytes, len(b)):]
		n, err := extensionBytes(next, rest)
		if err != nil {
			return ip{}, err
		}
		next = rest[0]
		if p.headerBytes += n; p.headerBytes > p.lenBytes {
			return ip{}, ErrMalformed
		}
	}
	return p, nil
}

// extensionBytes returns the length of the extension header that b begins with.
func extensionBytes(kind byte, b []byte) (int, error) {
	switch kind {
	case extensionHopByHop, extensionRouting, extensionDestination, extensionFragment, extensionAH:
	default:
		return 0, ErrNotTCP
	}
	if len(b) < extensionUnit {
		return 0, ErrTruncated
	}
	switch kind {
	case extensionFragment:
		if binary.BigEndian.Uint16(b[2:])&^0x6 != 0 { // an atomic one (RFC 6946) is whole
			return 0, ErrFragment
		}
		return extensionUnit, nil
	case extensionAH:
		return (int(b[1]) + 2) * bytesPerWord, nil
	}
	return (int(b[1]) + 1) * extensionUnit, nil
}

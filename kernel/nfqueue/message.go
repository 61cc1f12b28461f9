package nfqueue

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// message is one of netlink, with its header (linux/netlink.h).
type message []byte

const (
	headerBytes    = 16
	familyBytes    = 4 // struct nfgenmsg
	attributeBytes = 4 // struct nlattr
	align          = 4

	attributesAt = headerBytes + familyBytes
)

// Numbers of linux/netfilter/nfnetlink_queue.h.
const (
	packetMessage  = unix.NFNL_SUBSYS_QUEUE << 8
	verdictMessage = unix.NFNL_SUBSYS_QUEUE<<8 | 1
	configMessage  = unix.NFNL_SUBSYS_QUEUE<<8 | 2

	configCommand    = 1
	configParameters = 2
	configMaxPackets = 3
	configMask       = 4
	configFlags      = 5

	commandBind = 1
	copyPacket  = 2
	flagGSO     = 4

	packetHeader  = 1
	packetVerdict = 2
	packetInput   = 5
	packetPayload = 10
	packetLength  = 13

	hookOutput = 3 // NF_INET_LOCAL_OUT, linux/netfilter.h

	verdictDrop   = 0
	verdictAccept = 1
)

var errMessage = errors.New("a netlink message with a wrong length")

// cutMessage cuts the first message off.
func cutMessage(b []byte) (m message, rest []byte, err error) {
	if len(b) < headerBytes {
		return nil, nil, errMessage
	}
	n := int(binary.NativeEndian.Uint32(b))
	if n < headerBytes || n > len(b) {
		return nil, nil, errMessage
	}
	return message(b[:n]), b[min(len(b), (n+align-1)&^(align-1)):], nil
}

func (m message) kind() uint16 { return binary.NativeEndian.Uint16(m[4:]) }

// configurationSequence marks the answer to the configuration. Errors of
// verdicts have 0.
const configurationSequence = 1

// answer reads the kernel's answer to the configuration.
func (m message) answer() (unix.Errno, bool) {
	if m.kind() != unix.NLMSG_ERROR || len(m) < headerBytes+4 || binary.NativeEndian.Uint32(m[8:]) != configurationSequence {
		return 0, false
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(m[headerBytes:]))), true
}

// packet reads a packet; anything else is none.
func (m message) packet() (Packet, bool) {
	var p Packet
	if m.kind() != packetMessage || len(m) < attributesAt {
		return p, false
	}
	found, long := false, false
	for b := m[attributesAt:]; len(b) >= attributeBytes; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < attributeBytes || n > len(b) {
			return p, false
		}
		value := b[attributeBytes:n]
		switch kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER); {
		case kind == packetHeader && len(value) >= 7: // id, protocol, hook
			p.ID, p.Leaving, found = binary.BigEndian.Uint32(value), value[6] == hookOutput, true
		case kind == packetInput && len(value) >= 4:
			p.Device = binary.BigEndian.Uint32(value)
		case kind == packetPayload:
			p.Bytes = value
		case kind == packetLength && len(value) >= 4:
			p.LenBytes, long = int(binary.BigEndian.Uint32(value)), true
		}
		b = b[min(len(b), (n+align-1)&^(align-1)):]
	}
	if !long {
		p.LenBytes = len(p.Bytes)
	}
	return p, found
}

// appendHeader begins a message; putLength ends it.
func appendHeader(b []byte, kind, flags uint16, sequence uint32, number uint16) []byte {
	b = append(b, 0, 0, 0, 0)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, sequence)
	b = append(b, 0, 0, 0, 0) // from: the kernel knows
	return binary.BigEndian.AppendUint16(append(b, unix.AF_UNSPEC, 0), number)
}

func putLength(b []byte) []byte {
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

func appendAttribute(b []byte, kind uint16, value ...byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attributeBytes+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	for len(b)%align != 0 {
		b = append(b, 0)
	}
	return b
}

// configuration is the message that takes a number.
func configuration(c Config) []byte {
	big := binary.BigEndian.AppendUint32
	b := appendHeader(nil, configMessage, unix.NLM_F_REQUEST|unix.NLM_F_ACK, configurationSequence, c.Number)
	b = appendAttribute(b, configCommand, commandBind, 0, 0, unix.AF_UNSPEC)
	b = appendAttribute(b, configParameters, append(big(nil, c.CopyBytes), copyPacket)...)
	b = appendAttribute(b, configMaxPackets, big(nil, c.MaxPackets)...)
	b = appendAttribute(b, configMask, big(nil, flagGSO)...)
	b = appendAttribute(b, configFlags, big(nil, flagGSO)...)
	return putLength(b)
}

// verdictBytes is the length of a verdict's message.
const verdictBytes = attributesAt + attributeBytes + 8

func putVerdict(b *[verdictBytes]byte, number uint16, id, verdict uint32) {
	m := appendHeader(b[:0], verdictMessage, unix.NLM_F_REQUEST, 0, number)
	m = binary.NativeEndian.AppendUint16(m, attributeBytes+8)
	m = binary.NativeEndian.AppendUint16(m, packetVerdict)
	m = binary.BigEndian.AppendUint32(m, verdict)
	putLength(binary.BigEndian.AppendUint32(m, id))
}

package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"

	"torpor/block"
)

// header is what a request starts with:
//
//	0 magic 4 | 4 flags 2 | 6 command 2 | 8 cookie 8 | 16 offset 8 | 24 length 4
type header struct {
	flags    uint16
	command  command
	cookie   uint64
	offset   uint64
	lenBytes uint32
}

var errMagic = errors.New("wrong magic number")

// decodeHeader reads the first requestBytes of b.
func decodeHeader(b []byte) (header, error) {
	if magic := binary.BigEndian.Uint32(b); magic != magicRequest {
		return header{}, fmt.Errorf("decode request: %w %#x", errMagic, magic)
	}
	return header{
		flags:    binary.BigEndian.Uint16(b[4:]),
		command:  command(binary.BigEndian.Uint16(b[6:])),
		cookie:   binary.BigEndian.Uint64(b[8:]),
		offset:   binary.BigEndian.Uint64(b[16:]),
		lenBytes: binary.BigEndian.Uint32(b[24:]),
	}, nil
}

func (h header) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, magicRequest)
	b = binary.BigEndian.AppendUint16(b, h.flags)
	b = binary.BigEndian.AppendUint16(b, uint16(h.command))
	b = binary.BigEndian.AppendUint64(b, h.cookie)
	b = binary.BigEndian.AppendUint64(b, h.offset)
	return binary.BigEndian.AppendUint32(b, h.lenBytes)
}

// span is the piece of the device that a checked request is about.
func (h header) span() block.Range {
	return block.Range{Start: block.Offset(h.offset), LenBytes: int64(h.lenBytes)}
}

// inside is the part of the span that is whole blocks. Trims may be cut to that,
// and have to be: QEMU sends parts of blocks although it knows better.
func (h header) inside(blockBytes int) block.Range {
	size := uint64(blockBytes)
	start := (h.offset + size - 1) &^ (size - 1)
	end := (h.offset + uint64(h.lenBytes)) &^ (size - 1)
	return block.Range{Start: block.Offset(start), LenBytes: int64(max(end, start) - start)}
}

// payloadBytes is how many bytes follow the request.
func (h header) payloadBytes() int64 {
	if h.command == commandWrite {
		return int64(h.lenBytes)
	}
	return 0
}

// bufferBytes is how much memory the request's data needs.
func (h header) bufferBytes() int {
	if h.command == commandWrite || h.command == commandRead {
		return int(h.lenBytes)
	}
	return 0
}

func (h header) changes() bool {
	return h.command == commandWrite || h.command == commandTrim || h.command == commandWriteZeroes
}

// flagsOf lists the flags that commands may have. FUA is valid for all of them.
var flagsOf = [commands]uint16{
	commandRead:        flagFUA | flagDF,
	commandWrite:       flagFUA,
	commandDisconnect:  flagFUA,
	commandFlush:       flagFUA,
	commandTrim:        flagFUA,
	commandCache:       flagFUA,
	commandWriteZeroes: flagFUA | flagNoHole | flagFastZero,
	commandBlockStatus: flagFUA | flagReqOne,
}

// check returns what is wrong with a request, or 0.
func (h header) check(t *terms) errno {
	switch {
	case h.command >= commands,
		h.flags&^flagsOf[h.command] != 0,
		h.flags&flagDF != 0 && !t.structured:
		return errnoInvalid
	case h.changes() && t.flags&transmitReadOnly != 0:
		return errnoPerm
	}
	switch h.command {
	case commandFlush:
		if h.offset != 0 || h.lenBytes != 0 {
			return errnoInvalid
		}
		return 0
	case commandBlockStatus:
		if !t.meta || h.lenBytes == 0 {
			return errnoInvalid
		}
	}
	return h.checkSpan(t)
}

func (h header) checkSpan(t *terms) errno {
	beyond := h.offset > uint64(t.sizeBytes) || uint64(h.lenBytes) > uint64(t.sizeBytes)-h.offset
	switch {
	case h.bufferBytes() > maxPayloadBytes:
		if h.command == commandRead && t.structured {
			return errnoOverflow
		}
		return errnoInvalid
	case beyond && (h.command == commandWrite || h.command == commandWriteZeroes):
		return errnoNoSpace
	case beyond:
		return errnoInvalid
	case (h.offset|uint64(h.lenBytes))&uint64(t.blockBytes-1) != 0 && h.command != commandTrim:
		return errnoInvalid
	}
	return 0
}

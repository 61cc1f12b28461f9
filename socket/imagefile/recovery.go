package imagefile

import (
	"encoding/binary"

	"torpor/kernel/openfile"
	"torpor/socket"
)

// Recovery says what Open or Compact found besides good entries.
type Recovery struct {
	Lost     []Lost // in the order of the file
	CutBytes int64  // at the end of the file
	Repairs  int    // changes that made the file right again: zero after an orderly end
}

// Lost is a range of a file whose entries are gone. Those who used to be there
// are reset when they next send something; the owner may do so at once.
type Lost struct {
	Offset, Bytes int64

	// Key is the connection, as the damaged entry says, which may be wrong too.
	// It is zero if it can not be read, or if a living record has it. In a long
	// range there may have been more connections.
	Key socket.Key

	// Torn says that it was the end of the file: perhaps of an Add that was
	// under way when the process or the machine ended.
	Torn bool
}

// lost says what was in a damaged range.
func (s *store) lost(it *item) ([]Lost, error) {
	var all []Lost
	for i, start := range it.starts {
		end := it.end
		if i+1 < len(it.starts) {
			end = it.starts[i+1]
		}
		var head [headBytes]byte
		n, err := openfile.ReadAt(s.fd, head[:min(headBytes, end-start)], start)
		if err != nil {
			return nil, err
		}
		key, nothing := s.lostFrom(head[:n], start, end)
		if !nothing {
			all = append(all, Lost{Offset: start, Bytes: end - start, Key: key, Torn: it.tail})
		}
	}
	return all, nil
}

// lostFrom says which connection a damaged entry was of. Nothing is lost if it
// was dead, or a window: then its record is amended, and named. Neither counts
// if it is longer than it says, for it hides others.
func (s *store) lostFrom(head []byte, start, end int64) (key socket.Key, nothing bool) {
	if len(head) < entryHeaderBytes {
		return socket.Key{}, false
	}
	k, bodyBytes := parseWord(head)
	st := s.header.state(start, binary.LittleEndian.Uint32(head))
	if st == dead || k == kindWindow && bodyBytes == windowBodyBytes {
		return socket.Key{}, start+span(bodyBytes) == end
	}
	key, _ = socket.DecodeKey(head[entryHeaderBytes:])
	return key, false
}

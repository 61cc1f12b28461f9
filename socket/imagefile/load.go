package imagefile

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"os"
	"slices"

	"torpor/host"
	"torpor/kernel/openfile"
	"torpor/socket"
)

// repair is a change that makes a file right again.
type repair struct {
	kind   repairKind
	offset int64
	end    int64 // of a range
	cause  string
}

type repairKind int

const (
	writeHeader repairKind = iota
	cut                    // the file ends at the offset
	cover                  // with a void
	kill                   // mark the entry dead
	amend                  // mark the entry amended
)

// loader fills a store from its file, without changing it.
type loader struct {
	*store
	repairs []repair
	losses  []Lost
	windows map[uint32]uint32 // by unit of the record, unit of the last window
	amended map[uint32]uint64 // by unit of the record, hash of its key
	size    int64
	voids   int
	applied int // windows
	buf     [headBytes]byte
	each    func(header, *item) error // is called for each record that is whole, if not nil
}

// load reads all of a file.
func load(f *os.File, seed maphash.Seed, each func(header, *item) error) (*loader, error) {
	size, err := f.Seek(0, 2)
	if err != nil {
		return nil, fmt.Errorf("read size: %w", err)
	}
	first := make([]byte, entriesAt)
	n, err := openfile.ReadAt(int(f.Fd()), first, 0)
	if err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	h, whole, err := decodeHeader(first[:n])
	if err != nil {
		return nil, err
	}
	if size > unitsMost*unitBytes {
		return nil, fmt.Errorf("read size: %d bytes are more than 64 GiB: %w", size, host.ErrCorrupt)
	}
	l := &loader{store: newStore(f, h, seed), windows: map[uint32]uint32{}, amended: map[uint32]uint64{}, each: each, size: size}
	l.end = size
	if !whole {
		l.repair(repair{kind: writeHeader, cause: "one of the two headers is damaged"})
	}
	if err := l.scan(size); err != nil {
		return nil, err
	}
	if err := l.applyWindows(); err != nil {
		return nil, err
	}
	return l, l.dropLiving()
}

func (l *loader) repair(r repair) { l.repairs = append(l.repairs, r) }

func (l *loader) scan(size int64) error {
	scan := newScanner(l.file, l.header, size)
	for {
		it, ok, err := scan.next()
		if err != nil || !ok {
			return err
		}
		switch {
		case it.state == damaged:
			err = l.damaged(&it)
		case it.state == dead:
			if it.kind == kindVoid {
				l.voids++
			}
		case it.kind == kindRecord:
			err = l.living(&it)
		case it.kind == kindWindow:
			err = l.window(&it)
		}
		if err != nil {
			return err
		}
	}
}

// damaged notes what a damaged range held.
func (l *loader) damaged(it *item) error {
	lost, err := l.lost(it)
	if err != nil {
		return err
	}
	l.losses = append(l.losses, lost...)
	if it.tail {
		l.end = it.offset
		l.repair(repair{cut, it.offset, it.end, "the end is torn or damaged"})
		return nil
	}
	l.repair(repair{cover, it.offset, it.end, "damaged"})
	return nil
}

// living adds a record to the index.
func (l *loader) living(it *item) error {
	unit := uint32(it.offset / unitBytes)
	key, err := socket.DecodeKey(it.body())
	if err != nil {
		l.losses = append(l.losses, Lost{Offset: it.offset, Bytes: it.end - it.offset})
		l.repair(repair{kind: kill, offset: it.offset, cause: err.Error()})
		return nil
	}
	hash := l.hash(&key)
	earlier, found, err := l.find(&key, hash)
	if err != nil {
		return err
	}
	if found {
		l.drop(hash, earlier, "has the key of a later record")
	}
	l.index.insert(hash, unit)
	l.used += it.end - it.offset
	if it.state == amended {
		l.amended[unit] = hash
	}
	if l.each == nil {
		return nil
	}
	return l.each(l.header, it)
}

// drop takes a record out of the index.
func (l *loader) drop(hash uint64, p place, cause string) {
	l.repair(repair{kind: kill, offset: int64(p.record) * unitBytes, cause: cause})
	l.index.remove(hash, p.slot)
	l.used -= p.span
	delete(l.amended, p.record)
}

func (l *loader) window(it *item) error {
	unit := uint32(it.offset / unitBytes)
	record, _ := parseWindow(it.body())
	if earlier, found := l.windows[record]; found {
		l.repair(repair{kind: kill, offset: int64(earlier) * unitBytes, cause: "is a window that a later one replaces"})
	}
	l.windows[record] = unit
	return nil
}

// applyWindows lets the index point to the windows of amended records. Those
// that have none are lost: the one they were written with is not true any more.
func (l *loader) applyWindows() error {
	for record, window := range l.windows {
		key, st, err := l.recordAt(record)
		if err != nil {
			return err
		}
		hash := l.hash(&key)
		p, found, err := l.find(&key, hash)
		if err != nil {
			return err
		}
		if st == damaged || !found || p.unit != record || p.damaged {
			l.repair(repair{kind: kill, offset: int64(window) * unitBytes, cause: "is a window without a record"})
			continue
		}
		if st == live {
			l.repair(repair{kind: amend, offset: int64(record) * unitBytes, cause: "has a window and is not amended"})
		}
		delete(l.amended, record)
		l.index.table(hash).slots[p.slot] = newSlot(hash, window)
		l.used += span(windowBodyBytes)
		l.applied++
	}
	for record, hash := range l.amended {
		key, _, err := l.recordAt(record)
		if err != nil {
			return err
		}
		p, found, err := l.find(&key, hash)
		if err != nil {
			return err
		}
		if found && p.record == record {
			l.losses = append(l.losses, Lost{Offset: int64(record) * unitBytes, Bytes: p.span, Key: key})
			l.drop(hash, p, "is amended and has no window")
		}
	}
	return nil
}

// recordAt reads key and state of a living record; damaged if there is none.
func (l *loader) recordAt(unit uint32) (socket.Key, state, error) {
	if int64(unit)*unitBytes < entriesAt {
		return socket.Key{}, damaged, nil
	}
	k, body, err := l.head(unit, &l.buf)
	if err != nil || k != kindRecord {
		return socket.Key{}, damaged, err
	}
	key, err := socket.DecodeKey(body)
	if err != nil {
		return socket.Key{}, damaged, nil
	}
	return key, l.header.state(int64(unit)*unitBytes, binary.LittleEndian.Uint32(l.buf[:])), nil
}

// dropLiving takes the keys of living records off those that are lost: what
// was damaged is an earlier record with the same key, which was dead, or its
// key is.
func (l *loader) dropLiving() error {
	for i := range l.losses {
		k := &l.losses[i].Key
		if !k.Local.IsValid() {
			continue
		}
		_, found, err := l.find(k, l.hash(k))
		if err != nil {
			return err
		}
		if found {
			*k = socket.Key{}
		}
	}
	slices.SortFunc(l.losses, func(a, b Lost) int { return int(a.Offset/unitBytes - b.Offset/unitBytes) })
	slices.SortFunc(l.repairs, func(a, b repair) int { return int(a.offset/unitBytes - b.offset/unitBytes) })
	return nil
}

package imagefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"torpor/host"
	"torpor/kernel/openfile"
)

// newSuffix is behind the name of a file that is not complete.
const newSuffix = ".new"

// Create makes an empty socket image and opens it. A file that is there is
// host.ErrExists.
func Create(path string) (*File, error) {
	file, err := create(path)
	if err != nil {
		return nil, fmt.Errorf("create socket image %s: %w", path, err)
	}
	return file, nil
}

func create(path string) (*File, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, host.ErrExists
	}
	s, err := createNew(path, maphash.MakeSeed())
	if err != nil {
		return nil, err
	}
	err = os.Link(path+newSuffix, path)
	os.Remove(path + newSuffix)
	if err == nil {
		err = syncDir(path)
	}
	if err != nil {
		s.file.Close()
		if errors.Is(err, fs.ErrExist) {
			err = host.ErrExists
		}
		return nil, err
	}
	return &File{path: path, store: s}, nil
}

// createNew makes and locks an empty file with the suffix.
func createNew(path string, seed maphash.Seed) (*store, error) {
	f, err := openLocked(path+newSuffix, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return nil, err
	}
	h := newHeader()
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, err
	}
	if _, err = f.WriteAt(h.encode(), 0); err == nil {
		err = openfile.SyncData(f)
	}
	if err != nil {
		f.Close()
		os.Remove(path + newSuffix)
		return nil, err
	}
	return newStore(f, h, seed), nil
}

// Open opens a socket image, reads all of it and repairs what is damaged.
// Errors: host.ErrNotFound; host.ErrRefused if another process has it open;
// host.ErrUnsupported for another version; host.ErrCorrupt if it is no socket
// image. Close the File.
func Open(path string) (*File, *Recovery, error) {
	f, err := openLocked(path, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		err = host.ErrNotFound
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open socket image %s: %w", path, err)
	}
	l, err := load(f, maphash.MakeSeed(), nil)
	if err == nil {
		err = l.apply()
	}
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("open socket image %s: %w", path, err)
	}
	os.Remove(path + newSuffix) // of a compaction that was killed
	r := &Recovery{Lost: l.losses, Repairs: len(l.repairs)}
	for _, repair := range l.repairs {
		if repair.kind == cut {
			r.CutBytes = repair.end - repair.offset
		}
	}
	return &File{path: path, store: l.store}, r, nil
}

// openLocked opens a file that no other process has open.
func openLocked(path string, flags int) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, flags|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		err = openfile.Take(int(f.Fd()), openfile.Lock{Kind: openfile.LockFlock, Write: true})
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = fmt.Errorf("another process has it open: %w", host.ErrRefused)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		// Who had it locked may have replaced or removed it.
		mine, err := f.Stat()
		if err == nil && !mine.Mode().IsRegular() {
			err = fmt.Errorf("no regular file: %w", host.ErrInvalid)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		if now, err := os.Lstat(path); err == nil && os.SameFile(mine, now) {
			return f, nil
		}
		f.Close()
	}
}

// apply repairs the file.
func (l *loader) apply() error {
	for _, r := range l.repairs {
		var err error
		switch r.kind {
		case writeHeader:
			_, err = l.file.WriteAt(l.header.encode(), 0)
		case cut:
			err = l.file.Truncate(r.offset)
		case cover:
			err = l.cover(r.offset, r.end)
		case kill:
			err = l.setMark(uint32(r.offset/unitBytes), dead)
		case amend:
			err = l.setMark(uint32(r.offset/unitBytes), amended)
		}
		if err != nil {
			return fmt.Errorf("repair entry at %d: %w", r.offset, err)
		}
	}
	return nil
}

// voidMost is the length of the longest void; a multiple of unitBytes.
const voidMost = 64 << 20

// cover makes voids of a range. Its bytes stay for who wants to look at them.
func (l *loader) cover(offset, end int64) error {
	piece := make([]byte, min(scanBytes, end-offset))
	for offset < end {
		next := min(end, offset+voidMost)
		var b [entryHeaderBytes]byte
		binary.LittleEndian.PutUint32(b[:], l.header.mark(offset, dead))
		binary.LittleEndian.PutUint32(b[entryWordAt:], uint32(next-offset-entryHeaderBytes)<<4|uint32(kindVoid))
		sum := l.header.sum(b[entryWordAt:])
		for at := offset + entryHeaderBytes; at < next; {
			n, err := openfile.ReadAt(l.fd, piece[:min(int64(len(piece)), next-at)], at)
			if err != nil {
				return err
			}
			if n == 0 {
				return fmt.Errorf("file ends at %d: %w", at, host.ErrCorrupt)
			}
			sum = header{seed: sum}.sum(piece[:n])
			at += int64(n)
		}
		binary.LittleEndian.PutUint32(b[entrySumAt:], sum)
		if _, err := l.file.WriteAt(b[:], offset); err != nil {
			return err
		}
		offset = next
	}
	return nil
}

// syncDir writes the names beside a path to the disk.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

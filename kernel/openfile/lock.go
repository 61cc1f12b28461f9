package openfile

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LockKind says who holds a lock.
type LockKind string

// The kinds of lock, as the kernel calls them.
const (
	LockFlock LockKind = "FLOCK"  // flock(2): the open file
	LockRange LockKind = "OFDLCK" // F_OFD_SETLK: the open file
	LockPOSIX LockKind = "POSIX"  // F_SETLK: the process
	LockLease LockKind = "LEASE"  // F_SETLEASE: the open file
)

// Lock is a lock held on a file. Start and End are bytes, End excluded; End -1
// is the end of the file, wherever that will be.
type Lock struct {
	Kind       LockKind
	Write      bool
	Start, End int64
}

// Locks parses lines such as "1: FLOCK  ADVISORY  WRITE 2634 fe:00:131 0 EOF".
func (i Info) Locks() ([]Lock, error) {
	var locks []Lock
	for _, line := range i.All("lock") {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			return nil, fmt.Errorf("parse lock: %q", line)
		}
		l := Lock{Kind: LockKind(fields[1]), Write: fields[3] == "WRITE", End: -1}
		if l.Kind == "DELEG" {
			l.Kind = LockLease
		}
		var err error
		if l.Start, err = strconv.ParseInt(fields[6], 10, 64); err != nil {
			return nil, fmt.Errorf("parse lock: %q: %w", line, err)
		}
		if fields[7] != "EOF" {
			last, err := strconv.ParseInt(fields[7], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("parse lock: %q: %w", line, err)
			}
			l.End = last + 1
		}
		locks = append(locks, l)
	}
	return locks, nil
}

// Take takes a lock of kind LockFlock or LockRange for an open file without
// waiting. Errors: EWOULDBLOCK or EAGAIN when another holds it.
func Take(fd int, l Lock) error {
	if l.Kind == LockFlock {
		how := unix.LOCK_SH
		if l.Write {
			how = unix.LOCK_EX
		}
		if err := unix.Flock(fd, how|unix.LOCK_NB); err != nil {
			return fmt.Errorf("take lock: %w", err)
		}
		return nil
	}
	how := unix.Flock_t{Type: unix.F_RDLCK, Start: l.Start}
	if l.Write {
		how.Type = unix.F_WRLCK
	}
	if l.End >= 0 {
		how.Len = l.End - l.Start
	}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &how); err != nil {
		return fmt.Errorf("take lock: %w", err)
	}
	return nil
}

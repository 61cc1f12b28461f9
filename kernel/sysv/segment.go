// Package sysv reads and makes System V shared memory of the caller's ipc
// namespace.
//
// It holds no state; functions that name an id in advance may be called
// concurrently for different namespaces only.
package sysv

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Segment is one shared memory segment.
type Segment struct {
	ID       int
	Key      int32 // 0: private
	LenBytes int64
	Mode     uint32 // permission bits
	UID, GID uint32
	Dying    bool // marked to be destroyed with its last user
}

// Segments lists those of the namespace.
func Segments() ([]Segment, error) {
	lines, err := list("shm")
	if err != nil {
		return nil, err
	}
	var all []Segment
	for _, fields := range lines {
		id, err := strconv.Atoi(fields[1])
		if err != nil {
			return nil, fmt.Errorf("parse segments: %w", err)
		}
		s, err := stat(id)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// Others counts the semaphore sets and message queues of the namespace.
func Others() (semaphores, queues int, err error) {
	sem, err := list("sem")
	if err != nil {
		return 0, 0, err
	}
	msg, err := list("msg")
	return len(sem), len(msg), err
}

// list reads a table of /proc/sysvipc without its heading.
func list(name string) ([][]string, error) {
	f, err := os.Open("/proc/sysvipc/" + name)
	if err != nil {
		return nil, fmt.Errorf("list System V objects: %w", err)
	}
	defer f.Close()
	var lines [][]string
	scanner := bufio.NewScanner(f)
	scanner.Scan()
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if len(fields) < 2 {
			return nil, fmt.Errorf("list System V objects: line %q", scanner.Text())
		}
		lines = append(lines, fields)
	}
	return lines, scanner.Err()
}

const (
	shmDest = 0o1000 // SHM_DEST of linux/shm.h
	modes   = 0o777
)

func stat(id int) (Segment, error) {
	var d unix.SysvShmDesc
	if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &d); err != nil {
		return Segment{}, fmt.Errorf("read segment %d: %w", id, err)
	}
	return Segment{ID: id, Key: d.Perm.Key, LenBytes: int64(d.Segsz), Mode: uint32(d.Perm.Mode) & modes,
		UID: d.Perm.Uid, GID: d.Perm.Gid, Dying: d.Perm.Mode&shmDest != 0}, nil
}

// Make makes a segment with its id, which must be free. The caller may write to
// it by Do and removes it, if need be, by Remove.
func Make(s Segment) (err error) {
	// The kernel takes the id once, for the next object of the namespace.
	if err := os.WriteFile("/proc/sys/kernel/shm_next_id", []byte(strconv.Itoa(s.ID)), 0); err != nil {
		return fmt.Errorf("choose id of segment %d: %w", s.ID, err)
	}
	got, err := unix.SysvShmGet(int(s.Key), int(s.LenBytes), unix.IPC_CREAT|unix.IPC_EXCL|int(s.Mode))
	if err != nil {
		return fmt.Errorf("make segment %d: %w", s.ID, err)
	}
	if got != s.ID {
		return errors.Join(fmt.Errorf("make segment %d: got id %d: %w", s.ID, got, unix.EEXIST), Remove(got))
	}
	var d unix.SysvShmDesc
	d.Perm.Uid, d.Perm.Gid, d.Perm.Mode = s.UID, s.GID, s.Mode
	if _, err := unix.SysvShmCtl(s.ID, unix.IPC_SET, &d); err != nil {
		return errors.Join(fmt.Errorf("own segment %d: %w", s.ID, err), Remove(s.ID))
	}
	return nil
}

// Remove destroys a segment.
func Remove(id int) error {
	if _, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil); err != nil {
		return fmt.Errorf("remove segment %d: %w", id, err)
	}
	return nil
}

// Do gives f the content of a segment while it is attached.
func Do(id int, write bool, f func(content []byte) error) (err error) {
	flag := unix.SHM_RDONLY
	if write {
		flag = 0
	}
	content, err := unix.SysvShmAttach(id, 0, flag)
	if err != nil {
		return fmt.Errorf("attach segment %d: %w", id, err)
	}
	defer func() { err = errors.Join(err, unix.SysvShmDetach(content)) }()
	return f(content)
}

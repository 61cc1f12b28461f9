package object

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"torpor/host"
	"torpor/kernel/sysv"
	"torpor/kernel/visit"
)

// doIPC runs f in the container's ipc namespace.
func (c *scratch) doIPC(f func() error) {
	c.t.Helper()
	check(c.t, visit.Do(c.PID, visit.IPC, f))
}

// segments makes two segments, of which the second has the id 5.
func (c *scratch) segments() (ids []int) {
	c.t.Helper()
	c.doIPC(func() error {
		first, err := unix.SysvShmGet(unix.IPC_PRIVATE, 10000, unix.IPC_CREAT|0o600)
		if err != nil {
			return err
		}
		ids = []int{first, 5}
		if err := sysv.Make(sysv.Segment{ID: 5, Key: 0x1234, LenBytes: 4096, Mode: 0o640, UID: 7, GID: 8}); err != nil {
			return err
		}
		return sysv.Do(5, true, func(b []byte) error {
			copy(b, "content")
			return nil
		})
	})
	return ids
}

func TestSegments(t *testing.T) {
	from, dir := newScratch(t), t.TempDir()
	specs, err := DescribeSegments(from.Container, from.segments(), dir)
	check(t, err)
	if len(specs) != 2 {
		t.Fatalf("described %+v", specs)
	}
	to := newScratch(t)
	check(t, MakeSegments(to.Container, dir, specs))
	to.doIPC(func() error {
		all, err := sysv.Segments()
		check(t, err)
		if want := (sysv.Segment{ID: 5, Key: 0x1234, LenBytes: 4096, Mode: 0o640, UID: 7, GID: 8}); len(all) != 2 || all[1] != want {
			t.Errorf("segments: %+v", all)
		}
		if id, err := unix.SysvShmGet(0x1234, 0, 0); err != nil || id != 5 {
			t.Errorf("the key leads to segment %d, %v", id, err)
		}
		return sysv.Do(5, false, func(b []byte) error {
			if string(b[:7]) != "content" {
				t.Errorf("content %q", b[:7])
			}
			return nil
		})
	})
	if err := MakeSegments(to.Container, dir, specs); !errors.Is(err, unix.EEXIST) {
		t.Errorf("made over what is there: %v", err)
	}
	// All or nothing.
	third := newScratch(t)
	check(t, os.Truncate(filepath.Join(dir, segmentName(5)), 1))
	if err := MakeSegments(third.Container, dir, specs); !errors.Is(err, host.ErrCorrupt) {
		t.Errorf("made from a damaged file: %v", err)
	}
	third.doIPC(func() error {
		if all, err := sysv.Segments(); err != nil || len(all) != 0 {
			t.Errorf("left %+v, %v", all, err)
		}
		return nil
	})
}

func TestRefusedSegments(t *testing.T) {
	c := newScratch(t)
	c.doIPC(func() error {
		id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600)
		if err != nil {
			return err
		}
		b, err := unix.SysvShmAttach(id, 0, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.SysvShmDetach(b) })
		if err := sysv.Remove(id); err != nil {
			return err
		}
		if _, _, errno := unix.Syscall(unix.SYS_SEMGET, unix.IPC_PRIVATE, 3, unix.IPC_CREAT|0o600); errno != 0 {
			return errno
		}
		if _, _, errno := unix.Syscall(unix.SYS_MSGGET, unix.IPC_PRIVATE, unix.IPC_CREAT|0o600, 0); errno != 0 {
			return errno
		}
		return nil
	})
	_, err := DescribeSegments(c.Container, []int{99}, t.TempDir())
	wantRefusal(t, err, "1 System V semaphore sets", "1 System V message queues", "which is marked to be destroyed",
		"shared memory segment 99, which is not the container's")
}

package imagefile

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"torpor/host"
	"torpor/internal/kerneltest"
	"torpor/kernel/thread"
	"torpor/socket"
)

// TestFullDisk fills a small file system: the error says so, all that was added
// stays, and connections can be removed.
func TestFullDisk(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.MntNS)
	dir := t.TempDir()
	err := thread.Do(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
			return err
		}
		return fillDisk(filepath.Join(dir, "sockets"))
	})
	check(t, err)
}

func fillDisk(path string) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	n := 0
	for ; err == nil; n++ {
		if n > 1<<20 {
			return errors.New("the disk is never full")
		}
		err = f.Add(numbered(n))
	}
	n-- // was not added
	if !errors.Is(err, unix.ENOSPC) || f.Has(numbered(n).Key) {
		return fmt.Errorf("the %dth: %w", n, err)
	}
	big := numbered(1 << 20)
	big.Unread = bytes.Repeat([]byte{1}, 300<<10)
	if err := f.AddAll([]*socket.Spec{numbered(1<<20 + 1), big}); !errors.Is(err, unix.ENOSPC) || f.Has(big.Key) {
		return fmt.Errorf("a big one: %w", err)
	}
	if err := f.SetWindow(numbered(0).Key, socket.Window{}); !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("set window: %w", err)
	}
	if _, err := f.Compact(); !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("compact: %w", err)
	}
	for range 2 {
		for i := range n {
			if s, err := f.Get(numbered(i).Key); err != nil || s.Tag != uint64(i) {
				return fmt.Errorf("get %d: %w", i, err)
			}
		}
		if err := f.Close(); err != nil {
			return err
		}
		if report, err := Check(path); err != nil || len(report.Problems) > 0 {
			return fmt.Errorf("check: %v, %w", report, err)
		}
		var r *Recovery
		if f, r, err = Open(path); err != nil || len(r.Lost) > 0 || f.Len() != n {
			return fmt.Errorf("open: %+v, %w", r, err)
		}
	}
	for i := range n {
		if err := f.Remove(numbered(i).Key); err != nil {
			return fmt.Errorf("remove with a full disk: %w", err)
		}
	}
	if err := f.Add(numbered(0)); err != nil {
		return fmt.Errorf("add after all were removed: %w", err)
	}
	if _, err := f.Get(numbered(1).Key); !errors.Is(err, host.ErrNotFound) {
		return err
	}
	return f.Close()
}

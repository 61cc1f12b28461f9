package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// TestTortureSpace fills a thin volume that is larger than its log. The file
// system gets ENOSPC or EIO, as the kernel translates what its device says; it is
// clean after that, what was fsynced before is there, and after removing and
// trimming it can be written again.
func TestTortureSpace(t *testing.T) {
	for _, fs := range checkable {
		t.Run(fs.name, func(t *testing.T) {
			m := tortureMachine(t)
			r := newRig(m, "1g", m.fileDisks(6, 64<<20))
			device := r.attach()
			m.mkfs(fs.name, device)
			dir := m.mounted(device, "fs")
			s, err := beginScribe(filepath.Join(dir, "scribe"))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.end(); err != nil {
				t.Fatal(err)
			}
			full := fillUp(t, dir)
			t.Logf("%s says: %v", fs.name, full)
			if !errors.Is(full, syscall.ENOSPC) && !errors.Is(full, syscall.EIO) && !errors.Is(full, syscall.EROFS) {
				t.Errorf("writing a full volume: %v", full)
			}
			m.sh("umount", dir)
			// The first mount may want to write, for which there is no room but what
			// the device gives back.
			remount := func(options string) {
				m.sh("mount", "-o", options, device, dir)
			}
			remount("discard")
			for i := range fillFiles {
				if err := os.Remove(filepath.Join(dir, fmt.Sprintf("fill%d", i))); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}
			m.sh("sync", "-f", dir)
			m.sh("fstrim", dir)
			m.sh("umount", dir)
			m.sh(fs.check[0], append(slices.Clone(fs.check[1:]), device)...)
			remount("defaults")
			if err := s.check(); err != nil {
				t.Error(err)
			}
			again, err := beginScribe(filepath.Join(dir, "again"))
			if err != nil {
				t.Fatal(err)
			}
			m.eventually("it is written again", func() error {
				if again.ackedSteps() < 50 {
					return fmt.Errorf("%d steps are acknowledged", again.ackedSteps())
				}
				return nil
			})
			if err := errors.Join(again.end(), again.check()); err != nil {
				t.Error(err)
			}
			m.sh("umount", dir)
			m.sh(fs.check[0], append(slices.Clone(fs.check[1:]), device)...)
			r.whole()
			if v := r.inspect(); v.Log.State != "ok" {
				t.Errorf("volume is %+v", v)
			}
		})
	}
}

// fillFiles is more than fit.
const fillFiles = 100

// fillUp writes files of random content, each synced, until one fails.
func fillUp(t *testing.T, dir string) error {
	t.Helper()
	for i := range fillFiles {
		path := filepath.Join(dir, fmt.Sprintf("fill%d", i))
		b := content(path, i, 8<<20)
		if err := errors.Join(os.WriteFile(path, b, 0o644), syncPath(path)); err != nil {
			return err
		}
	}
	t.Fatal("more fits than there is")
	return nil
}

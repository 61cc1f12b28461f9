package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
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
			first, last := fillUp(t, dir)
			t.Logf("%s says first: %v, and last: %v", fs.name, first, last)
			if !errors.Is(first, syscall.ENOSPC) {
				t.Errorf("writing a full volume: %v", first)
			}
			if v := r.inspect(); v.Log.State != "ok" {
				t.Errorf("full volume is %+v", v)
			}
			m.sh("umount", dir)
			if out, err := exec.Command("mount", "-o", "discard", device, dir).CombinedOutput(); err != nil {
				// To recover, the file system wants to write where it never has.
				t.Logf("mount says: %v: %s", err, out)
				m.must("volume", "disk", "add", r.name, m.grownDisk())
				m.sh("mount", "-o", "discard", device, dir)
			}
			fills, _ := filepath.Glob(filepath.Join(dir, "fill-*"))
			for _, path := range fills {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			m.sh("sync", "-f", dir)
			m.sh("fstrim", dir)
			m.sh("umount", dir)
			m.sh(fs.check[0], append(slices.Clone(fs.check[1:]), device)...)
			m.sh("mount", device, dir)
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

// grownDisk is one more disk.
func (m *machine) grownDisk() string {
	m.t.Helper()
	path := m.file("another", "")
	if err := os.Truncate(path, 64<<20); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// fillUp writes files of random content, each synced, large ones and then smaller
// ones, each until some fail in a row. It returns the first error, and the last.
func fillUp(t *testing.T, dir string) (first, last error) {
	t.Helper()
	const most, enough = 4000, 3
	for _, lenBytes := range []int{8 << 20, 256 << 10, 4 << 10} {
		for i, failed := 0, 0; failed < enough; i++ {
			if i == most {
				t.Fatal("more fits than there is")
			}
			path := filepath.Join(dir, fmt.Sprintf("fill-%d-%d", lenBytes, i))
			err := os.WriteFile(path, content(path, i, lenBytes), 0o644)
			if err == nil {
				err = syncPath(path)
			}
			if err == nil {
				continue
			}
			failed++
			last = err
			if first == nil {
				first = err
			}
		}
	}
	return first, last
}

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTortureThreeDisksLost takes away more disks than the layout has parity for,
// at once, while a file system is written: it gets errors, and people are told
// why. After the disks are back all that was fsynced is there, in a clean file
// system.
func TestTortureThreeDisksLost(t *testing.T) {
	for _, fs := range checkable {
		t.Run(fs.name, func(t *testing.T) {
			m := tortureMachine(t)
			disks := m.fileDisks(6, 160<<20)
			g := newGround(m, "ground", 640<<20)
			for i := range 3 {
				disks[i] = m.file(fmt.Sprintf("ground/disk%d", i), "")
				if err := os.Truncate(disks[i], 160<<20); err != nil {
					t.Fatal(err)
				}
			}
			r := newRig(m, "400m", disks)
			device := r.attach()
			m.mkfs(fs.name, device)
			dir := m.mounted(device, "fs")
			s, err := beginScribe(filepath.Join(dir, "scribe"))
			if err != nil {
				t.Fatal(err)
			}
			m.eventually("something is written", func() error {
				if s.ackedSteps() < 50 {
					return fmt.Errorf("%d steps are acknowledged", s.ackedSteps())
				}
				return nil
			})
			g.shutDown()
			if err := s.awaitErrors(); err != nil {
				t.Error(err)
			}
			if v := r.inspect(); v.Log.State != "failed" || !strings.Contains(v.Log.Reason, "3 of 6 disks are left, 4 are needed") {
				t.Errorf("without three disks volume is %+v", v)
			}
			m.sh("umount", dir)
			m.must("volume", "detach", r.name)
			if v := r.inspect(); v.Log.State != "failed" || !strings.Contains(v.Log.Reason, "attach") {
				t.Errorf("detached volume is %+v", v)
			}
			g.comeBack()
			device = r.attach()
			m.sh("mount", device, dir)
			m.sh("umount", dir)
			m.sh(fs.check[0], append(slices.Clone(fs.check[1:]), device)...)
			m.sh("mount", device, dir)
			if err := s.check(); err != nil {
				t.Error(err)
			}
			t.Logf("%d steps were acknowledged", s.ackedSteps())
			m.sh("umount", dir)
			for _, d := range r.inspect().Log.Disks {
				if d.State != "up" {
					m.must("volume", "disk", "replace", r.name, d.Path, d.Path)
				}
			}
			if v := r.inspect(); v.Log.State != "ok" {
				t.Errorf("with all disks volume is %+v", v)
			}
			r.whole()
		})
	}
}

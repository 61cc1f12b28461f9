package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"torpor/block"
)

// TestTortureServerKilled kills the volume server at random moments while a file
// system on its device is written. The device ends with errors and never goes on
// without what it had acknowledged; after the next attach the file system is
// clean, and all that was fsynced is there.
func TestTortureServerKilled(t *testing.T) {
	for _, fs := range checkable {
		t.Run(fs.name, func(t *testing.T) {
			m := tortureMachine(t)
			r := newRig(m, "400m", m.fileDisks(6, 192<<20))
			device := r.attach()
			m.mkfs(fs.name, device)
			var kept []*scribe
			rounds(t, 2, func(round int) {
				dir := m.mounted(device, "fs")
				s, err := beginScribe(filepath.Join(dir, fmt.Sprint(round)))
				if err != nil {
					t.Fatal(err)
				}
				old := device
				r.killWhileWriting(s, round)
				r.mustBeDead(old)
				m.sh("umount", dir)
				device = r.attach()
				if device == old && len(loopsOf(r.name)) != 1 {
					t.Errorf("volume is attached as %v", loopsOf(r.name))
				}
				m.sh("mount", device, dir) // recovers
				m.sh("umount", dir)
				m.sh(fs.check[0], append(slices.Clone(fs.check[1:]), device)...)
				m.sh("mount", device, dir)
				kept = append(kept, s)
				for _, s := range kept {
					if err := s.check(); err != nil {
						t.Errorf("%s: %v", s.dir, err)
					}
				}
				if len(kept) > 3 {
					if err := os.RemoveAll(kept[0].dir); err != nil {
						t.Error(err)
					}
					kept = kept[1:]
				}
				m.sh("umount", dir)
			})
			r.whole()
			m.must("volume", "detach", r.name)
			if left := loopsOf(r.name); len(left) > 0 {
				t.Errorf("after detach there are %v", left)
			}
		})
	}
}

// killWhileWriting kills the server, and more, after a random time, and waits for
// another one.
func (r *rig) killWhileWriting(s *scribe, round int) {
	r.t.Helper()
	r.eventually("something is written", func() error {
		if s.ackedSteps() < 3 {
			return errors.New("nothing is acknowledged")
		}
		return nil
	})
	time.Sleep(time.Duration(rand.IntN(600)) * time.Millisecond)
	pid := r.inspect().Log.PID
	switch round % 4 {
	case 1: // with the daemon
		r.stopDaemon(syscall.SIGKILL)
	case 2: // while it executes itself again
		_ = syscall.Kill(pid, syscall.SIGHUP)
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
	}
	r.killServer(pid)
	s.doomed.Store(true)
	if round%4 == 3 { // and the next one, in the middle of its recovery
		r.eventually("another server runs", func() error {
			pids := r.processes("volume")
			if len(pids) == 0 {
				return errors.New("none does")
			}
			time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
			r.killServer(pids[0])
			return nil
		})
	}
	if r.daemon == nil {
		r.serve()
	}
	if err := s.awaitErrors(); err != nil {
		r.t.Error(err)
	}
	r.t.Logf("round %d: %d steps were acknowledged", round, s.ackedSteps())
	r.eventually("the volume is served again", func() error {
		if v := r.inspect(); v.Log.State != "ok" || v.Log.PID == pid || v.Device == "" {
			return fmt.Errorf("it is %+v", v)
		}
		return nil
	})
}

// killServer kills a process and waits for its end: of that nobody can hide.
func (r *rig) killServer(pid int) {
	r.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		r.t.Fatal(err)
	}
	r.eventually("server ends", func() error {
		if slices.Contains(r.processes("volume"), pid) {
			return fmt.Errorf("process %d runs", pid)
		}
		return nil
	})
}

// mustBeDead reads and writes a device of a server that was killed.
func (r *rig) mustBeDead(device string) {
	r.t.Helper()
	f, err := os.OpenFile(device, os.O_RDWR|syscall.O_DIRECT|syscall.O_SYNC, 0)
	if err != nil {
		return // as it should be, too
	}
	defer f.Close()
	b := block.AlignedBuffer(block.BlockBytes)
	if _, err := f.ReadAt(b, 64<<20); !errors.Is(err, syscall.EIO) {
		r.t.Errorf("read of %s without its server: %v", device, err)
	}
	if _, err := f.WriteAt(b, 64<<20); !errors.Is(err, syscall.EIO) {
		r.t.Errorf("write of %s without its server: %v", device, err)
	}
}

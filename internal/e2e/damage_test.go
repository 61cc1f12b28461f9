package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestDamagedCheckpoint checks that a checkpoint that is not what was written
// is never restored: the service starts cold, and an event says why.
func TestDamagedCheckpoint(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(dir string) error
		again  bool // the keeper starts again and finds it
		reason string
	}{
		{"meta", func(dir string) error { return scribble(filepath.Join(dir, "meta")) }, true, "corrupt"},
		{"pages", func(dir string) error { return os.Truncate(filepath.Join(dir, "pages.img"), 4096) }, false, "pages image"},
		{"pages found", func(dir string) error { return os.Truncate(filepath.Join(dir, "pages.img"), 4096) }, true, "pages image"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			held := m.upWeb()
			held.want("/count", "1")
			m.must("sleep", "web")
			dirs, err := filepath.Glob(filepath.Join(m.state(), "services", "*", "checkpoint"))
			if err != nil || len(dirs) != 1 {
				t.Fatalf("checkpoints are %q, %v", dirs, err)
			}
			if err := test.damage(dirs[0]); err != nil {
				t.Fatal(err)
			}
			if test.again {
				for _, pid := range m.processes("keeper") {
					if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
				}
			} else {
				m.torpor("wake", "web") // fails, as it must
			}
			m.eventually("a cold start", func() error {
				if s := m.ps()["web"]; s.State != "awake" || s.MainPID == 0 || s.Restarts != 0 && s.Restarts != 1 {
					return fmt.Errorf("it is %+v", s)
				}
				events := m.must("events", "--json")
				for line := range strings.Lines(events) {
					if strings.Contains(line, `"cold"`) && strings.Contains(line, test.reason) {
						return nil
					}
				}
				return fmt.Errorf("events are %s", events)
			})
			m.connect(m.ps()["web"].Address+":8000").want("/count", "1")
		})
	}
}

// scribble changes some bytes in the middle of a file.
func scribble(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte("not what was written"), 200); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

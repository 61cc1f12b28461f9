package e2e

import (
	"fmt"
	"syscall"
	"testing"
)

// TestTortureDaemonReplaced has fio on both exports of a volume while the daemon
// is killed and started again, the volume server executes its binary again, and a
// newer torpor is installed. fio sees no error.
func TestTortureDaemonReplaced(t *testing.T) {
	m := tortureMachine(t)
	r := newRig(m, "200m", m.fileDisks(6, 128<<20))
	device, uri := r.attach(), r.export()
	loads := []*load{
		beginLoad(t, "block device", 0, onDevice(device)...),
		beginLoad(t, "NBD", 100<<20, onNBD(uri)...),
	}
	goesOn := func() {
		for _, l := range loads {
			l.goesOn(m)
		}
	}
	goesOn()
	first := r.inspect()
	rounds(t, 1, func(round int) {
		m.stopDaemon(syscall.SIGKILL)
		goesOn()
		m.serve()
		if now := r.inspect(); now.Log.PID != first.Log.PID {
			t.Errorf("another daemon has another server: %+v, was %+v", now, first)
		}
		for range 3 {
			if err := syscall.Kill(first.Log.PID, syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			goesOn()
		}
		before := r.inspect().Log.Binary
		m.stopDaemon(syscall.SIGTERM)
		m.install(fmt.Sprintf("torpor%d", round))
		m.serve()
		m.eventually("the server is the new torpor's", func() error {
			if now := r.inspect(); now.Log.PID != first.Log.PID || now.Log.Binary == before || now.Device != device || now.Log.State != "ok" {
				return fmt.Errorf("it is %+v, was %+v", now, first)
			}
			return nil
		})
		goesOn()
	})
	for _, l := range loads {
		l.end()
	}
	r.whole()
}

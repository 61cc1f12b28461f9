//go:build torture

package hostdev

import (
	"os"
	"testing"

	"torpor/internal/kerneltest"
)

// TestKillDuringWrite: a request that a server had read when it was killed
// reaches the next one.
func TestKillDuringWrite(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	path := newBackingFile(t)
	dev, err := openFileDevice(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	e := attach(t, dev, Spec{})
	state, file, err := e.Suspend()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := serve(t, order{Path: path, State: &state, Stall: true}, file)
	f, p := open(t, e, os.O_RDWR), page(t)
	copy(p, "content")
	written := make(chan error, 1)
	go func() {
		_, err := f.WriteAt(p, 4096)
		written <- err
	}()
	s.hear("stalled")
	s.kill()
	state.Suspended = false
	again, err := Resume(dev, state, file)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Errorf("write: %v", err)
	}
	f.Close()
	if err := again.Detach(); err != nil {
		t.Error(err)
	}
	got := make([]byte, 7)
	if _, err := dev.file.ReadAt(got, 4096); err != nil || string(got) != "content" {
		t.Errorf("got %q, %v", got, err)
	}
}

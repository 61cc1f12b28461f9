package hostdev

import (
	"os"
	"testing"
	"time"

	"torpor/internal/kerneltest"
)

// TestKillDuringWrite: a request that a server had read when it was killed
// reaches the next one.
func TestKillDuringWrite(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	path, dev := newFileDevice(t)
	e := attach(t, dev, Spec{})
	state, file, err := e.Suspend()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// A write that nobody answers can not be killed: this process would stay with
	// it for ever, and keep the connection open.
	giveUp := time.AfterFunc(time.Minute, func() { Abort(state.MountDir) })
	defer giveUp.Stop()
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

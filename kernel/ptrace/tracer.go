package ptrace

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Tracer runs functions on one locked thread. Waiting with __WNOTHREAD, it
// never takes the exit status of another thread's children, such as those of
// os/exec.
type Tracer struct {
	work chan func()
	done chan struct{}
}

// NewTracer starts the thread. The caller must Close it.
func NewTracer() *Tracer {
	t := &Tracer{work: make(chan func()), done: make(chan struct{})}
	go t.start()
	return t
}

// start finds a thread that ends with its goroutine: all but the main one do.
func (t *Tracer) start() {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		t.serve()
		return
	}
	elsewhere := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(elsewhere)
		t.serve()
	}()
	<-elsewhere
	runtime.UnlockOSThread()
}

// serve runs on a locked thread that is never unlocked: its end detaches what
// is left.
func (t *Tracer) serve() {
	defer close(t.done)
	for f := range t.work {
		f()
	}
}

// Do runs f on the tracer's thread and waits for it.
func (t *Tracer) Do(f func() error) error {
	var err error
	finished := make(chan struct{})
	t.work <- func() {
		defer close(finished)
		err = f()
	}
	<-finished
	return err
}

// Close ends the thread. Tracees that are still attached go on running, or die
// if they were seized with OptExitKill.
func (t *Tracer) Close() {
	close(t.work)
	<-t.done
}

package ptrace

import "runtime"

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
	go func() {
		defer close(t.done)
		runtime.LockOSThread() // never unlocked: the thread's end detaches what is left
		for f := range t.work {
			f()
		}
	}()
	return t
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

package ptrace

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Tracer runs functions on one locked thread. Waiting with __WNOTHREAD, it
// never takes the exit status of another thread's children, such as those of
// os/exec.
type Tracer struct {
	work chan func()
	done chan struct{}
	tid  int // of its thread; to be read after done
}

// NewTracer starts the thread. The caller must Close it.
func NewTracer() *Tracer {
	t := &Tracer{work: make(chan func()), done: make(chan struct{})}
	go t.start(func() {})
	return t
}

// start finds a thread that ends with its goroutine, as all but the main one
// do, and that is no process's parent: os/exec forks on any thread, and a wait
// for any tracee would take the exit of such a child, or wait for it.
// It calls locked once it has any thread.
func (t *Tracer) start(locked func()) {
	runtime.LockOSThread()
	locked()
	if unix.Gettid() != unix.Getpid() && childless() {
		t.serve()
		return
	}
	// Kept until the next goroutine has a thread, so that it gets another.
	next := make(chan struct{})
	go t.start(func() { close(next) })
	<-next
	runtime.UnlockOSThread()
}

// childless reports whether this thread has no children, as far as the kernel
// tells (CONFIG_PROC_CHILDREN).
func childless() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", unix.Gettid()))
	return err != nil || len(b) == 0
}

// serve runs on a locked thread that is never unlocked: its end detaches what
// is left.
func (t *Tracer) serve() {
	defer close(t.done)
	t.tid = unix.Gettid()
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
// if they were seized with OptExitKill; when Close returns, another tracer can
// have them.
func (t *Tracer) Close() {
	close(t.work)
	<-t.done
	// The goroutine has ended; the kernel detaches when its thread does, which
	// is a little later. Another thread may get the number, but not that soon.
	for deadline := time.Now().Add(time.Second); threadExists(t.tid) && time.Now().Before(deadline); {
		time.Sleep(20 * time.Microsecond)
	}
}

// threadExists reports whether this process has a thread tid.
func threadExists(tid int) bool {
	return unix.Tgkill(unix.Getpid(), tid, 0) == nil
}

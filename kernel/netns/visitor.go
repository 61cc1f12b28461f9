package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"torpor/kernel/thread"
)

// Visitor runs code in one network namespace without a thread of its own: the
// calling one goes there and comes back, which takes microseconds. Do takes a
// new thread each time. A Visitor keeps the namespace alive and may be used
// concurrently.
type Visitor struct{ away, home *os.File }

// NewVisitor opens the namespace at path; "" is that of the calling thread.
func NewVisitor(path string) (*Visitor, error) {
	if path == "" {
		path = "/proc/thread-self/ns/net"
	}
	away, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	v := &Visitor{away: away}
	err = thread.Do(func() (err error) { // threads that nobody has locked are all in the same one
		v.home, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		away.Close()
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return v, nil
}

// Descriptor is the namespace's; it is the Visitor's own.
func (v *Visitor) Descriptor() int { return int(v.away.Fd()) }

// Do runs f in the namespace. The caller's goroutine must not be locked to a
// thread that is elsewhere. What holds for the function Do holds here.
func (v *Visitor) Do(f func() error) error {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() { // /proc/self shows where this one is
		runtime.UnlockOSThread()
		return Do(fmt.Sprintf("/proc/self/fd/%d", v.away.Fd()), f)
	}
	if err := unix.Setns(v.Descriptor(), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	err := f()
	if back := unix.Setns(int(v.home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leave network namespace: %w", back)) // still locked: the thread ends with the goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// Close lets the namespace go.
func (v *Visitor) Close() error { return errors.Join(v.away.Close(), v.home.Close()) }

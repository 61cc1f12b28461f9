package ptrace

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Guard makes a Wait for a process's first thread return when the process has
// ended: the kernel reports that thread last, when the exits of all others have
// been taken, also of those that this process traces. It begins to take them
// after a time, so that a caller who waits for them in order is not disturbed,
// and ends when the returned function is called, which reports whether that
// time was over.
func Guard(pid int, after time.Duration) (release func() bool) { return guard(pid, after, func() {}) }

// guard calls late first when the time is over.
func guard(pid int, after time.Duration, late func()) (release func() bool) {
	const pause = 10 * time.Millisecond
	var released atomic.Bool
	timer := time.AfterFunc(after, func() {
		late()
		for ; !released.Load(); time.Sleep(pause) {
			reapThreads(pid)
		}
	})
	return func() bool {
		released.Store(true)
		return !timer.Stop()
	}
}

// reapThreads takes the exits of all threads but the first that have ended. Any
// thread of the tracer's process may.
func reapThreads(pid int) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return // it is gone
	}
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err == nil && tid != pid {
			_ = unix.Waitid(unix.P_PID, tid, nil, unix.WEXITED|unix.WNOHANG|unix.WALL, nil) // it runs, or is not ours
		}
	}
}

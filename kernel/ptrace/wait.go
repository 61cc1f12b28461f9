package ptrace

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Stop is what Wait saw a task do.
type Stop struct {
	TID    int
	Status unix.WaitStatus
}

// Event is the PTRACE_EVENT_* number of a stop, or 0.
func (s Stop) Event() int {
	if !s.Status.Stopped() {
		return 0
	}
	return int(uint32(s.Status) >> 16)
}

// Gone reports whether the task ended.
func (s Stop) Gone() bool { return s.Status.Exited() || s.Status.Signaled() }

// Trapped reports whether the task executed a breakpoint or a single step.
func (s Stop) Trapped() bool {
	return s.Status.Stopped() && s.Event() == 0 && s.Status.StopSignal() == unix.SIGTRAP
}

// EventStop is the stop of Interrupt, of group-stops and of new tasks.
const EventStop = unix.PTRACE_EVENT_STOP

func (s Stop) String() string {
	switch {
	case s.Status.Exited():
		return fmt.Sprintf("task %d exited with %d", s.TID, s.Status.ExitStatus())
	case s.Status.Signaled():
		return fmt.Sprintf("task %d was killed by %s", s.TID, unix.SignalName(s.Status.Signal()))
	}
	return fmt.Sprintf("task %d stopped by %s, event %d", s.TID, unix.SignalName(s.Status.StopSignal()), s.Event())
}

// Wait waits for tid (-1: any tracee of this thread) to stop or end.
func Wait(tid int) (Stop, error) { return wait(tid, 0) }

// Poll is Wait without waiting: TID is 0 when nothing happened.
func Poll(tid int) (Stop, error) { return wait(tid, unix.WNOHANG) }

func wait(tid, flags int) (Stop, error) {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(tid, &status, unix.WALL|unix.WNOTHREAD|flags, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Stop{}, fmt.Errorf("wait for task %d: %w", tid, err)
		}
		return Stop{TID: got, Status: status}, nil
	}
}

package eventfile

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setTicks is TFD_IOC_SET_TICKS of linux/timerfd.h; it needs
// CONFIG_CHECKPOINT_RESTORE.
const setTicks = 0x40085400

// Timer is the state of a timerfd.
type Timer struct {
	Clock    int           // CLOCK_*
	Flags    int           // TFD_TIMER_* that it was set with
	Value    time.Duration // from now; 0: it does not run
	At       time.Time     // instead of Value for one that was set to a time of day
	Interval time.Duration
	Ticks    uint64 // expirations not yet read
}

// The clocks of a Timer, and the flags that it may be set with.
const (
	ClockRealtime      = unix.CLOCK_REALTIME
	ClockMonotonic     = unix.CLOCK_MONOTONIC
	ClockBoottime      = unix.CLOCK_BOOTTIME
	ClockRealtimeAlarm = unix.CLOCK_REALTIME_ALARM
	ClockBoottimeAlarm = unix.CLOCK_BOOTTIME_ALARM

	TimerAbsolute    = unix.TFD_TIMER_ABSTIME
	TimerCancelOnSet = unix.TFD_TIMER_CANCEL_ON_SET
)

// TimerLeft returns the time until a timerfd expires and its interval. Ticks
// that are due are counted first, so that they are in its fdinfo.
func TimerLeft(fd int) (left, interval time.Duration, err error) {
	var spec unix.ItimerSpec
	if err := unix.TimerfdGettime(fd, &spec); err != nil {
		return 0, 0, fmt.Errorf("read timer: %w", err)
	}
	return time.Duration(spec.Value.Nano()), time.Duration(spec.Interval.Nano()), nil
}

// NewTimer makes a timerfd.
func NewTimer(t Timer) (fd int, err error) {
	if fd, err = unix.TimerfdCreate(t.Clock, unix.TFD_CLOEXEC); err != nil {
		return -1, fmt.Errorf("make timer: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	spec := unix.ItimerSpec{Interval: unix.NsecToTimespec(int64(t.Interval)), Value: unix.NsecToTimespec(int64(t.Value))}
	flags := 0
	if !t.At.IsZero() {
		spec.Value, flags = unix.NsecToTimespec(t.At.UnixNano()), t.Flags
	}
	if err := unix.TimerfdSettime(fd, flags, &spec, nil); err != nil {
		return fd, fmt.Errorf("set timer: %w", err)
	}
	if t.Ticks == 0 {
		return fd, nil
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), setTicks, uintptr(unsafe.Pointer(&t.Ticks))); errno != 0 {
		return fd, fmt.Errorf("set ticks of timer: %w", errno)
	}
	return fd, nil
}

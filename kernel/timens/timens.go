// Package timens makes time namespaces, in which the clocks that count from the
// machine's start read otherwise.
//
// Its functions hold no state and may be called concurrently. They need root
// and a kernel with CONFIG_TIME_NS (Linux 5.6).
package timens

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"torpor/kernel/thread"
)

// Clocks are readings of, or offsets to, the two clocks that a namespace has of
// its own.
type Clocks struct {
	Monotonic time.Duration `json:"monotonic_ns"` // CLOCK_MONOTONIC
	Boottime  time.Duration `json:"boottime_ns"`  // CLOCK_BOOTTIME
}

// Minus is the difference of each clock.
func (c Clocks) Minus(o Clocks) Clocks {
	return Clocks{c.Monotonic - o.Monotonic, c.Boottime - o.Boottime}
}

// Plus is the sum of each clock.
func (c Clocks) Plus(o Clocks) Clocks {
	return Clocks{c.Monotonic + o.Monotonic, c.Boottime + o.Boottime}
}

// Now reads the clocks of this process.
func Now() (Clocks, error) {
	var c Clocks
	for id, to := range map[int32]*time.Duration{unix.CLOCK_MONOTONIC: &c.Monotonic, unix.CLOCK_BOOTTIME: &c.Boottime} {
		var ts unix.Timespec
		if err := unix.ClockGettime(id, &ts); err != nil {
			return c, fmt.Errorf("read clock %d: %w", id, err)
		}
		*to = time.Duration(ts.Nano())
	}
	return c, nil
}

// Offsets are what a process's clocks read more than the machine's. Errors:
// os.ErrNotExist for a process that is gone, or a kernel without time
// namespaces, where nobody has offsets.
func Offsets(pid int) (Clocks, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/timens_offsets", pid))
	if err != nil {
		return Clocks{}, fmt.Errorf("read clock offsets: %w", err)
	}
	return parseOffsets(string(b))
}

// parseOffsets parses lines such as "monotonic  -86400  0".
func parseOffsets(text string) (Clocks, error) {
	var c Clocks
	for line := range strings.Lines(text) {
		var name string
		var seconds, nanoseconds int64
		if _, err := fmt.Sscan(line, &name, &seconds, &nanoseconds); err != nil {
			return c, fmt.Errorf("parse clock offsets: %q: %w", line, err)
		}
		offset := time.Duration(seconds)*time.Second + time.Duration(nanoseconds)
		switch name {
		case "monotonic":
			c.Monotonic = offset
		case "boottime":
			c.Boottime = offset
		}
	}
	return c, nil
}

// New makes a namespace with these offsets and returns a descriptor of it, by
// which a process of one thread joins (setns). The caller closes it; the
// namespace lives as long as it, and as processes in it.
func New(offsets Clocks) (*os.File, error) {
	var file *os.File
	err := thread.Do(func() (err error) {
		file, err = onThisThread(offsets)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make time namespace: %w", err)
	}
	return file, nil
}

func onThisThread(offsets Clocks) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return nil, err
	}
	// A thread has no such file below /proc/thread-self.
	self := fmt.Sprintf("/proc/%d/", unix.Gettid())
	text := "monotonic " + seconds(offsets.Monotonic) + "\nboottime " + seconds(offsets.Boottime) + "\n"
	if err := os.WriteFile(self+"timens_offsets", []byte(text), 0); err != nil {
		return nil, err
	}
	return os.Open(self + "ns/time_for_children")
}

// seconds writes an offset as the kernel reads it: nanoseconds are not
// negative.
func seconds(d time.Duration) string {
	s := d / time.Second
	rest := d % time.Second
	if rest < 0 {
		s, rest = s-1, rest+time.Second
	}
	return fmt.Sprintf("%d %d", int64(s), int64(rest))
}

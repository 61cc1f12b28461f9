// Package clock reads clocks that package time does not show.
package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Boot returns the time since the machine was started, also while it was
// suspended (CLOCK_BOOTTIME).
func Boot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // every Linux since 2.6.39 has it
	}
	return time.Duration(ts.Nano())
}

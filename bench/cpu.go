package bench

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cpuTime is what was used until a moment.
type cpuTime struct {
	machine time.Duration // busy, all CPUs, all processes and the kernel's threads
	process time.Duration // this process
}

// tick is the unit of /proc/stat, USER_HZ.
const tick = 10 * time.Millisecond

func readCPU() cpuTime {
	var u syscall.Rusage
	var c cpuTime
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil {
		c.process = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return c
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, field := range strings.Fields(line) {
		// user nice system idle iowait irq softirq steal; guests are in user
		if i < 1 || i > 7 || i == 4 || i == 5 {
			continue
		}
		n, _ := strconv.ParseInt(field, 10, 64)
		c.machine += time.Duration(n) * tick
	}
	return c
}

func (c cpuTime) since(begun cpuTime) cpuTime {
	return cpuTime{c.machine - begun.machine, c.process - begun.process}
}

// residentBytes is the memory of this process.
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

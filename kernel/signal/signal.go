// Package signal knows the names of signals.
//
// Its functions hold no state and may be called concurrently.
package signal

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Parse returns the signal of a name, with or without SIG, or of a number.
// Real-time signals are RTMIN+n and RTMAX-n.
func Parse(name string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n <= 64 {
		return syscall.Signal(n), nil
	}
	short := strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if n := unix.SignalNum("SIG" + short); n != 0 {
		return n, nil
	}
	const rtMin, rtMax = 34, 64 // as the C library counts
	for prefix, base := range map[string]int{"RTMIN": rtMin, "RTMAX": rtMax} {
		rest, ok := strings.CutPrefix(short, prefix)
		if !ok {
			continue
		}
		offset := 0
		if rest != "" {
			var err error
			if offset, err = strconv.Atoi(rest); err != nil {
				break
			}
		}
		if n := base + offset; n >= rtMin && n <= rtMax {
			return syscall.Signal(n), nil
		}
	}
	return 0, fmt.Errorf("parse signal %q: no such signal", name)
}

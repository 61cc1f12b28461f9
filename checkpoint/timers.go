package checkpoint

import (
	"fmt"
	"os"
	"strings"

	"torpor/host"
)

// readTimers reads the POSIX timers of a process but their settings.
func readTimers(pid int) ([]TimerSpec, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/timers", pid))
	if err != nil {
		return nil, fmt.Errorf("read timers: %w", err)
	}
	return parseTimers(string(text))
}

// askTimers asks for the settings of interval and POSIX timers.
func askTimers(q *inquiry, spec *ProcessSpec) []func() error {
	var take []func() error
	for which := range spec.ITimers {
		a := q.ask(0, 32, 1, sysGetitimer, uint64(which), 0)
		take = append(take, func() error {
			w, err := a.words()
			if err == nil {
				spec.ITimers[which] = ITimer{int64(w[0]), int64(w[1]), int64(w[2]), int64(w[3])}
			}
			return err
		})
	}
	if len(spec.Timers) == 0 {
		return take
	}
	// Least kernel 6.15: before it a timer's id can not be chosen cheaply.
	restorable := q.ask(0, 0, 0, sysPrctl, prTimerRestoreIDs, 2)
	take = append(take, func() error {
		if _, err := restorable.value(); err != nil {
			return &host.Refusal{Reasons: []string{fmt.Sprintf("process %d uses POSIX timers, which this kernel can not restore (Linux 6.15 can)", q.process.pid)}}
		}
		return nil
	})
	for i := range spec.Timers {
		a := q.ask(0, 32, 1, sysTimerGettime, uint64(spec.Timers[i].ID), 0)
		take = append(take, func() error {
			w, err := a.words()
			for j := range w {
				spec.Timers[i].Spec[j] = int64(w[j])
			}
			return err
		})
	}
	return take
}

// parseTimers parses /proc/PID/timers:
//
//	ID: 0
//	signal: 14/00007ffd1f1a2b40
//	notify: signal/pid.2634
//	ClockID: 1
func parseTimers(text string) ([]TimerSpec, error) {
	var timers []TimerSpec
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if key == "ID" {
			timers = append(timers, TimerSpec{})
		}
		if len(timers) == 0 {
			return nil, fmt.Errorf("parse timers: %q before the first timer", line)
		}
		if err := timers[len(timers)-1].parse(key, value); err != nil {
			return nil, fmt.Errorf("parse timers: %s %q: %w", key, value, err)
		}
	}
	return timers, nil
}

func (t *TimerSpec) parse(key, value string) error {
	var err error
	switch key {
	case "ID":
		_, err = fmt.Sscanf(value, "%d", &t.ID)
	case "ClockID":
		_, err = fmt.Sscanf(value, "%d", &t.Clock)
	case "signal":
		_, err = fmt.Sscanf(value, "%d/%x", &t.Signal, &t.Value)
	case "notify":
		how, who, _ := strings.Cut(value, "/")
		switch how {
		case "signal":
			t.Notify = 0
		case "none":
			t.Notify = 1
		case "thread":
			t.Notify = 2
		default:
			return fmt.Errorf("unknown notification")
		}
		if tid, ok := strings.CutPrefix(who, "tid."); ok {
			t.Notify |= 4 // SIGEV_THREAD_ID
			_, err = fmt.Sscanf(tid, "%d", &t.TID)
		}
	}
	return err
}

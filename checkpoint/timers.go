package checkpoint

import (
	"fmt"
	"os"
	"strings"

	"torpor/host"
	"torpor/kernel/ptrace"
)

// timers asks for interval and POSIX timers.
func (c *collector) timers(spec *ProcessSpec) error {
	leader := c.process.tasks[0].tid
	for which := range spec.ITimers {
		b, err := c.ask(leader, 32, sysGetitimer, uint64(which), uint64(c.scratch))
		if err != nil {
			return err
		}
		w := words(b)
		spec.ITimers[which] = ITimer{int64(w[0]), int64(w[1]), int64(w[2]), int64(w[3])}
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/timers", c.process.pid))
	if err != nil {
		return fmt.Errorf("read timers: %w", err)
	}
	timers, err := parseTimers(string(text))
	if err != nil || len(timers) == 0 {
		return err
	}
	// Least kernel 6.15: before it a timer's id can not be chosen cheaply.
	if _, err := ptrace.Inject(leader, c.insn, sysPrctl, prTimerRestoreIDs, 2); err != nil {
		return &host.Refusal{Reasons: []string{fmt.Sprintf("process %d uses POSIX timers, which this kernel can not restore (Linux 6.15 can)", c.process.pid)}}
	}
	for i := range timers {
		b, err := c.ask(leader, 32, sysTimerGettime, uint64(timers[i].ID), uint64(c.scratch))
		if err != nil {
			return err
		}
		for j, w := range words(b) {
			timers[i].Spec[j] = int64(w)
		}
	}
	spec.Timers = timers
	return nil
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

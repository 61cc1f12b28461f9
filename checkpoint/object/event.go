package object

import (
	"errors"
	"os"
	"time"

	"torpor/kernel/eventfile"
	"torpor/kernel/openfile"
)

// refusedAnonymous names what has no path and can not be made again.
var refusedAnonymous = map[string]string{
	"anon_inode:[io_uring]":         "an io_uring",
	"anon_inode:[userfaultfd]":      "a userfaultfd",
	"anon_inode:[perf_event]":       "a performance counter",
	"anon_inode:seccomp notify":     "a seccomp listener",
	"anon_inode:[pidfd]":            "a pidfd",
	"anon_inode:[fanotify]":         "a fanotify group",
	"anon_inode:bpf-map":            "a BPF map",
	"anon_inode:bpf-prog":           "a BPF program",
	"anon_inode:bpf_link":           "a BPF link",
	"anon_inode:[landlock-ruleset]": "a Landlock ruleset",
	"anon_inode:[fscontext]":        "a file system that is being mounted",
	"anon_inode:kvm-vm":             "a virtual machine",
	"anon_inode:kvm-vcpu":           "a virtual machine",
	"anon_inode:[vfio-device]":      "a device of another driver",
	"anon_inode:[iommufd]":          "an IOMMU",
	"anon_inode:sync_file":          "a fence of a graphics driver",
}

// describeAnonymous describes what the kernel makes without a file.
func (d *describer) describeAnonymous(i int) error {
	o, s := &d.open[i], &d.specs[i]
	switch o.Target {
	case "anon_inode:[eventpoll]":
		s.Kind = KindEvents
		return nil
	case "anon_inode:[eventfd]":
		s.Kind = KindCounter
	case "anon_inode:[timerfd]":
		s.Kind = KindTimer
	case "anon_inode:[signalfd]":
		s.Kind = KindSignals
	case "anon_inode:inotify":
		s.Kind = KindWatches
	default:
		what := refusedAnonymous[o.Target]
		if what == "" {
			what = "an unknown object of the kernel, " + o.Target
		}
		d.refuse(i, "%s", what)
		return nil
	}
	return d.describeEvents(i)
}

// describeEvents reads the state of counters, timers, signals and watches.
func (d *describer) describeEvents(i int) error {
	s, fd := &d.specs[i], d.open[i].FD
	var err error
	if s.Kind == KindTimer {
		s.Timer = new(TimerSpec)
		if s.Timer.Left, s.Timer.Interval, err = eventfile.TimerLeft(fd); err != nil {
			return err
		}
	}
	info, err := openfile.ReadInfo(os.Getpid(), fd)
	if err != nil {
		return err
	}
	switch s.Kind {
	case KindCounter:
		s.Counter = new(CounterSpec)
		err = s.Counter.parse(info)
	case KindTimer:
		err = s.Timer.parse(info)
	case KindSignals:
		err = info.Scan("sigmask", "%x", &s.Signals)
	case KindWatches:
		return d.describeWatches(i, info)
	}
	if errors.Is(err, openfile.ErrNoInfo) {
		d.refuse(i, "%s, whose state the kernel does not tell", d.open[i].Target)
		return nil
	}
	return err
}

// parse reads an eventfd's count and kind; the kind needs Linux 6.5.
func (c *CounterSpec) parse(info openfile.Info) error {
	var semaphore int
	err := errors.Join(info.Scan("eventfd-count", "%x", &c.Count), info.Scan("eventfd-semaphore", "%d", &semaphore))
	c.Semaphore = semaphore != 0
	return err
}

// parse reads the rest of a timer's state. The time left is known already.
func (t *TimerSpec) parse(info openfile.Info) error {
	err := errors.Join(info.Scan("clockid", "%d", &t.Clock), info.Scan("ticks", "%d", &t.Ticks),
		info.Scan("settime flags", "%o", &t.Flags))
	if t.Flags&eventfile.TimerAbsolute != 0 && t.Left > 0 && t.timeOfDay() {
		t.At, t.Left = time.Now().Add(t.Left).UTC(), 0
	}
	return err
}

func (t *TimerSpec) timeOfDay() bool {
	return t.Clock == eventfile.ClockRealtime || t.Clock == eventfile.ClockRealtimeAlarm
}

func (t *TimerSpec) make() (int, error) {
	return eventfile.NewTimer(eventfile.Timer{Clock: t.Clock, Flags: t.Flags, Value: t.Left, At: t.At, Interval: t.Interval, Ticks: t.Ticks})
}

// validTimer reports whether a timer is one that Describe gives.
func (t *TimerSpec) valid() bool {
	switch t.Clock {
	case eventfile.ClockRealtime, eventfile.ClockMonotonic, eventfile.ClockBoottime, eventfile.ClockRealtimeAlarm, eventfile.ClockBoottimeAlarm:
	default:
		return false
	}
	absolute := t.Flags&eventfile.TimerAbsolute != 0 && t.timeOfDay()
	return t.Flags&^(eventfile.TimerAbsolute|eventfile.TimerCancelOnSet) == 0 && t.Left >= 0 && t.Interval >= 0 &&
		(t.At.IsZero() || absolute && t.At.Unix() > 0 && t.At.Year() < 2200)
}

package keeper

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"torpor/checkpoint"
	"torpor/host"
	"torpor/kernel/proc"
)

// sleep puts the service to sleep. It runs on the service's goroutine.
func (s *service) sleep() (*SleepReport, error) {
	switch st := s.snapshot(); {
	case s.target.NoSleepReason != "":
		return nil, &host.Refusal{Reasons: []string{s.target.NoSleepReason}}
	case st.State == host.Asleep:
		return &SleepReport{}, nil
	case st.State != host.Awake:
		return nil, fmt.Errorf("sleep %s: it is %s", s.target.ID, st.State)
	case st.MainPID == 0:
		return nil, fmt.Errorf("sleep %s: it has no processes", s.target.ID)
	}
	report, err := s.dump()
	if err != nil {
		s.refused(err)
		return nil, err
	}
	attrs := map[string]string{
		"duration_ms": fmt.Sprintf("%.3f", float64(report.Duration.Microseconds())/1000),
		"written_kb":  fmt.Sprint(report.WrittenBytes >> 10), "returned_kb": fmt.Sprint(report.ReturnedBytes >> 10),
	}
	s.event(host.EventSleep, "", attrs)
	return report, nil
}

func (s *service) dump() (*SleepReport, error) {
	begun := time.Now()
	list := s.list()
	pids, err := list()
	if err != nil {
		return nil, err
	}
	if len(pids) == 0 {
		return nil, fmt.Errorf("sleep %s: it has no processes", s.target.ID)
	}
	if err := checkpoint.Check(pids); err != nil {
		return nil, err
	}
	if begun.Sub(s.lookedAt) > freshLook {
		act, err := s.look(begun)
		if err != nil {
			return nil, err
		}
		if act.Used != "" {
			s.idle.active(begun, act.Used)
		}
	}
	s.lookStill(begun, pids)
	waited := s.idle.waited(begun)
	checked := time.Since(begun)
	s.set(func(st *Status) { st.State = host.Sleeping })
	o := checkpoint.DumpOptions{Dir: s.target.CheckpointDir, Holder: s.holder, List: list, Verify: s.target.Verify, Quiet: true,
		Soon: s.soon}
	if s.snapshot().Cycles > 0 {
		o.OwnMostBytes = ownMostBytes
	}
	d, err := tryQuiet(list, busyTries, func() (*checkpoint.DumpReport, error) { return checkpoint.Dump(o) })
	if err != nil {
		s.set(func(st *Status) { st.State = host.Awake })
		return nil, err
	}
	d.Phases["check"] = checked
	held := connections(d.Spec)
	report := &SleepReport{WrittenBytes: d.WrittenBytes, ReturnedBytes: d.ResidentBytes, Processes: len(d.Spec.Processes),
		Threads: d.Threads, Descriptors: d.Spec.Parked, Connections: held, Phases: d.Phases}
	now := time.Now()
	s.waited = waited
	report.Duration = now.Sub(begun)
	s.set(func(st *Status) {
		st.State, st.Since, st.MainPID, st.Reason = host.Asleep, now, 0, ""
		st.Cycles++
		st.ReturnedBytes, st.ConnectionsHeld, st.LastSleep = d.ResidentBytes, held, report.Duration
	})
	// It is asleep already: what fails now is tried again.
	s.rearm(d.Spec)
	s.slept(now, held)
	report.Phases["arm"] = time.Since(now)
	return report, nil
}

// ownMostBytes is the size of mappings that an instance of a ready checkpoint
// takes for itself when it sleeps for the second time: one that is used often
// wakes faster for a few MB of disk, one that is not costs only what it changed.
const ownMostBytes = 16 << 20

// A service that is at work is tried again: most requests take less than this.
// Quiet is when no thread ran for a while: one that waits for its turn, for a
// lock or for a short pause to end looks idle at any one moment.
const (
	busyTries   = 200
	quietWindow = 5 * time.Millisecond
)

// tryQuiet dumps when no thread has run for quietWindow. A tree that was never
// quiet is checkpoint.ErrBusy.
func tryQuiet(list func() ([]int, error), tries int, dump func() (*checkpoint.DumpReport, error)) (*checkpoint.DumpReport, error) {
	var last error
	for range tries {
		quiet, err := unswitched(list)
		if err != nil {
			return nil, err
		}
		if !quiet {
			last = checkpoint.Busy("it is at work")
			continue
		}
		d, err := dump()
		if err == nil || !errors.Is(err, checkpoint.ErrBusy) {
			return d, err
		}
		last = err
	}
	return nil, last
}

// unswitched reports whether no thread was scheduled for quietWindow.
func unswitched(list func() ([]int, error)) (bool, error) {
	pids, err := list()
	if err != nil {
		return false, err
	}
	before, err := proc.ContextSwitches(pids)
	if err != nil {
		return false, err
	}
	time.Sleep(quietWindow)
	after, err := proc.ContextSwitches(pids)
	return before == after, err
}

// rearmAfter is the pause before a stub that could not be made, or that
// failed, is made again: the packet that wakes may still be there.
const rearmAfter = 2 * time.Second

// rearm arms, or says why not and lets tick try again.
func (s *service) rearm(spec *checkpoint.Spec) {
	if err := s.arm(spec); err != nil {
		s.retryAt = time.Now().Add(rearmAfter)
		s.event(host.EventError, "arm: "+err.Error(), nil)
	}
}

// rearmLate is rearm for a sleeping service whose last try failed.
func (s *service) rearmLate(now time.Time) {
	if s.watch != nil || now.Before(s.retryAt) {
		return
	}
	spec, err := checkpoint.ReadSpec(s.target.CheckpointDir)
	if err != nil {
		s.retryAt = now.Add(rearmAfter)
		return
	}
	s.rearm(spec)
}

// list returns what lists the service's processes. A process in its cgroup
// that is not below init is an exec session: with one it can not sleep.
func (s *service) list() func() ([]int, error) {
	tree := checkpoint.ContainerTree(s.target.InitPID)
	return func() ([]int, error) {
		pids, err := tree()
		if err != nil {
			return nil, err
		}
		known := map[int]bool{s.target.InitPID: true}
		for _, pid := range pids {
			known[pid] = true
		}
		members, err := s.cgroups.Pids()
		if err != nil {
			return nil, err
		}
		for _, pid := range members {
			if !known[pid] && proc.Exists(pid) {
				return nil, &host.Refusal{Reasons: []string{fmt.Sprintf("process %d was started from outside (exec)", pid)}}
			}
		}
		return pids, nil
	}
}

// refused notes why the service stays awake, and when to try again.
func (s *service) refused(err error) {
	s.retryAt = time.Now().Add(max(s.target.SleepAfter, time.Second))
	reason := strings.TrimPrefix(err.Error(), "refused: ")
	if reason != s.snapshot().Reason {
		s.event(host.EventRefuse, reason, nil)
	}
	s.set(func(st *Status) { st.Reason = reason })
}

// arm makes the stub and begins to watch the parked sockets.
func (s *service) arm(spec *checkpoint.Spec) error {
	var err error
	if s.stub == nil {
		s.stub, err = checkpoint.Arm(spec, checkpoint.ArmOptions{Holder: s.holder, Join: s.target.InitPID, AddToCgroups: s.cgroups.Add})
	}
	if err != nil {
		return err
	}
	s.watch, err = startWatch(s.holder, spec, s.packets, &s.helpers)
	return err
}

func (s *service) closeWatch() {
	if s.watch != nil {
		s.watch.close()
		s.watch = nil
	}
}

// wake restores the service. It runs on the service's goroutine, so however
// many ask, one wake happens.
func (s *service) wake(reason string) (*WakeReport, error) { return s.wakeFor(reason, false) }

// wakeFor is wake; ahead of a ping of the service's own, or because somebody
// needs it.
func (s *service) wakeFor(reason string, ahead bool) (*WakeReport, error) {
	begun := time.Now()
	if st := s.snapshot(); st.State != host.Asleep {
		return &WakeReport{Already: true}, nil
	}
	s.closeWatch()
	s.set(func(st *Status) { st.State = host.Waking })
	report, err := s.restore()
	if err != nil {
		return nil, s.wakeFailed(err)
	}
	took := time.Since(begun)
	s.set(func(st *Status) {
		st.State, st.Since, st.MainPID, st.Reason = host.Awake, time.Now(), report.PIDs[0], ""
		st.LastWakePhases = report.Phases
		st.LastWake, st.LastWakeReason, st.ConnectionsHeld, st.ReturnedBytes = took, reason, 0, 0
		st.ConnectionsSuspended, st.ConnectionsParkedWhy = 0, ""
	})
	s.woke(ahead)
	s.suspendAt = time.Time{}
	s.event(host.EventWake, reason, map[string]string{"duration_ms": fmt.Sprintf("%.3f", float64(took.Microseconds())/1000)})
	return &WakeReport{Duration: took, Reason: reason, Phases: report.Phases}, nil
}

func (s *service) restore() (*checkpoint.RestoreReport, error) {
	if s.stub == nil {
		spec, err := checkpoint.ReadSpec(s.target.CheckpointDir)
		if err != nil {
			return nil, err
		}
		if err := s.arm(spec); err != nil {
			return nil, err
		}
		s.closeWatch()
	}
	if err := s.parkAgain(s.stub.Spec); err != nil {
		return nil, err
	}
	stub := s.stub
	s.stub = nil
	if err := stub.Check(s.holder); err != nil {
		return nil, errors.Join(err, stub.Kill())
	}
	tracer := s.tracers.take()
	defer s.tracers.put(tracer)
	report, err := stub.Restore(tracer, checkpoint.RestoreOptions{Waited: s.waited, Commit: func() error { return checkpoint.Discard(s.target.CheckpointDir) }})
	if err != nil {
		return nil, err
	}
	// It runs: duplicates of its descriptors that stay parked are no reason to
	// call the wake failed. The next sleep releases them.
	if err := s.holder.Release(); err != nil {
		s.event(host.EventError, "release parked descriptors: "+err.Error(), nil)
	}
	return report, nil
}

// wakeFailed decides what a failed wake leaves behind: a checkpoint that can
// be tried again, or, when it is not usable, an exit for which the daemon
// starts the service cold.
func (s *service) wakeFailed(err error) error {
	if !s.initLives() {
		err = errors.Join(errContainerGone, err)
		s.cold(err)
		return err
	}
	_, readErr := checkpoint.ReadSpec(s.target.CheckpointDir)
	if readErr == nil && !errors.Is(err, host.ErrCorrupt) {
		s.set(func(st *Status) { st.State, st.Reason = host.Asleep, "wake failed: "+err.Error() })
		s.retryAt = time.Now().Add(rearmAfter)
		return err
	}
	s.cold(err)
	return err
}

// errContainerGone says that what a sleeping service has left is not there.
var errContainerGone = errors.New("its container has ended")

// initLives reports whether the container's init, which holds what a checkpoint
// needs, is there.
func (s *service) initLives() bool {
	status, err := proc.ReadStatus(s.target.InitPID, s.target.InitPID)
	return err == nil && status.State != 'Z'
}

// cold ends a service whose checkpoint can not be restored, so that the daemon
// starts it again.
func (s *service) cold(cause error) {
	s.endSuspension()
	reason := "checkpoint can not be restored: " + cause.Error()
	s.set(func(st *Status) {
		st.State, st.Since, st.Exited, st.ExitCode, st.Reason = host.Exited, time.Now(), true, ColdExitCode, reason
	})
	s.event(host.EventCold, reason, nil)
	s.event(host.EventExit, reason, map[string]string{"exit_code": fmt.Sprint(ColdExitCode), "cold": "true"})
}

// connections counts the parked sockets that are connected.
func connections(spec *checkpoint.Spec) int {
	n := 0
	for i := range spec.Processes {
		for _, d := range spec.Processes[i].Descriptors {
			if d.Connected {
				n++
			}
		}
	}
	return n
}

// forget drops the checkpoint; the container is gone or about to be.
func (s *service) forget() error {
	s.closeWatch()
	s.endSuspension()
	var errs []error
	if s.stub != nil {
		errs = append(errs, s.stub.Kill())
		s.stub = nil
	}
	return errors.Join(append(errs, s.dropCheckpoint())...)
}

// dropCheckpoint removes the files of the checkpoint.
func (s *service) dropCheckpoint() error {
	errs := []error{checkpoint.Discard(s.target.CheckpointDir)}
	for _, path := range s.checkpointFiles() {
		errs = append(errs, removeFile(path))
	}
	return errors.Join(errs...)
}

// removeFile removes a file that may not exist.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

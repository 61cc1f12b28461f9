package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"torpor/checkpoint"
	"torpor/host"
	"torpor/kernel/cgroup"
	"torpor/kernel/proc"
	"torpor/socket/analyzer"
)

// service is one container in the keeper's care. Its fields belong to the
// goroutine of run; others send it work. What readers may see at any time is
// the status below its mutex.
type service struct {
	target  Target
	holder  *checkpoint.Holder
	cgroups cgroup.Membership // of init, and so of the container
	emit    func(host.Event)
	tracers *tracers

	work    chan func()
	exits   chan exitRecord
	packets chan string // reasons to wake, from the watch
	done    chan struct{}
	cancel  context.CancelFunc
	helpers sync.WaitGroup // log copiers, exit reader, watch

	ticks   *time.Ticker
	idle    idleness
	probe   probe
	stub    *checkpoint.Stub // while asleep; nil if it could not be armed
	watch   *watch
	retryAt time.Time // of the next try to sleep after a refusal

	analyzer *analyzer.Analyzer
	lookedAt time.Time     // at the connections
	waited   time.Duration // before it last fell asleep
	alarm    *time.Timer   // to wake ahead of a ping of its own
	due      analyzer.Wake // what the alarm is for

	suspension *suspension // of a sleeping service; nil if its connections are parked
	suspendAt  time.Time   // not before

	lastSuspension *suspension // that has ended, if any

	mu     sync.Mutex
	status Status
}

// startService begins to care for a container. The caller must stop it.
func startService(target Target, tracers *tracers, emit func(host.Event)) (*service, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &service{
		target:  target,
		holder:  &checkpoint.Holder{PID: target.InitPID, Socket: filepath.Join(target.RunDir, "init.sock"), Kept: target.Kept},
		emit:    emit,
		tracers: tracers,
		work:    make(chan func()),
		exits:   make(chan exitRecord),
		packets: make(chan string),
		done:    make(chan struct{}),
		cancel:  cancel,
		status:  Status{ID: target.ID, State: host.Awake, Since: time.Now()},

		analyzer: analyzer.New(target.settings(), time.Now()),
		alarm:    newAlarm(),
	}
	var err error
	if s.cgroups, err = cgroup.OwnOf(target.InitPID); err != nil {
		cancel()
		return nil, err
	}
	if err := s.find(); err != nil {
		cancel()
		return nil, err
	}
	if err := s.startHelpers(ctx); err != nil {
		cancel()
		s.helpers.Wait()
		return nil, err
	}
	s.ticks = time.NewTicker(s.tickEvery())
	go s.run(ctx)
	return s, nil
}

// startHelpers starts the log copiers and the reader of exits.
func (s *service) startHelpers(ctx context.Context) error {
	log, err := openLog(s.target.LogPath)
	if err != nil {
		return err
	}
	sources, err := s.logSources()
	if err != nil {
		return errors.Join(err, log.Close())
	}
	var copiers sync.WaitGroup
	for _, source := range sources {
		copiers.Go(func() { source.copy(ctx, log) })
	}
	s.helpers.Go(func() {
		copiers.Wait()
		log.Close()
	})
	exits, err := openExits(filepath.Join(s.target.RunDir, "exit"))
	if err != nil {
		return err
	}
	s.helpers.Go(func() { exits.read(ctx, s.exits) })
	return nil
}

// run is the only goroutine that changes the service.
func (s *service) run(ctx context.Context) {
	defer close(s.done)
	defer s.ticks.Stop()
	defer s.alarm.Stop()
	for {
		select {
		case <-ctx.Done():
			s.closeWatch()
			s.leaveSuspension()
			return
		case f := <-s.work:
			f()
		case record := <-s.exits:
			s.exited(record)
		case reason := <-s.packets:
			if _, err := s.wake(reason); err != nil {
				s.event(host.EventError, "wake: "+err.Error(), nil)
			}
		case <-s.alarm.C:
			s.wakeAhead()
			s.ticks.Reset(s.tickEvery())
		case <-s.ticks.C:
			ahead := s.idle.ahead
			s.tick()
			if s.idle.ahead != ahead {
				s.ticks.Reset(s.tickEvery())
			}
		}
	}
}

// tickEvery is how often idleness is looked at: a few times in the quiet time,
// at least every five seconds, at most ten times a second.
func (s *service) tickEvery() time.Duration {
	quiet := s.target.SleepAfter
	if quiet == 0 {
		return 5 * time.Second
	}
	if s.idle.ahead {
		quiet = s.analyzer.Quiet()
	}
	return min(max(quiet/4, 100*time.Millisecond), 5*time.Second)
}

// do runs f on the service's goroutine.
func (s *service) do(ctx context.Context, f func()) error {
	finished := make(chan struct{})
	work := func() {
		defer close(finished)
		f()
	}
	select {
	case s.work <- work:
	case <-s.done:
		return fmt.Errorf("reach %s: %w", s.target.ID, host.ErrNotFound)
	case <-ctx.Done():
		return ctx.Err()
	}
	<-finished
	return nil
}

// stop ends the care without touching the container.
func (s *service) stop() {
	s.cancel()
	<-s.done
	s.helpers.Wait()
}

// find learns what state the container is in.
func (s *service) find() error {
	spec, err := checkpoint.ReadSpec(s.target.CheckpointDir)
	switch {
	case errors.Is(err, host.ErrNotFound):
		return s.findAwake("")
	case err != nil:
		return s.findDamaged(err)
	}
	alive, err := s.livePIDs()
	if err != nil {
		return err
	}
	if allAlive(spec, alive) {
		// The last keeper ended between commit and kill, or between resume and
		// discard: the processes are the truth.
		return errors.Join(checkpoint.Discard(s.target.CheckpointDir), s.findAwake(""))
	}
	if err := killAll(alive); err != nil {
		return err
	}
	s.set(func(st *Status) {
		st.State, st.Since, st.ConnectionsHeld, st.ConnectionsSuspended = host.Asleep, spec.Created, connections(spec), spec.Suspended
	})
	if err := s.findSuspended(spec); err != nil {
		return err
	}
	s.recall(spec)
	if err := s.arm(spec); errors.Is(err, host.ErrCorrupt) {
		return s.findDamaged(err)
	} else if err != nil {
		s.retryAt = time.Now().Add(rearmAfter)
		s.event(host.EventError, "arm: "+err.Error(), nil)
	}
	return nil
}

// findDamaged is find for a checkpoint that can not be read. It is never
// restored: if the processes are gone, so is what they had in memory, and the
// daemon starts the service cold.
func (s *service) findDamaged(cause error) error {
	alive, err := s.livePIDs()
	if err != nil {
		return err
	}
	if err := checkpoint.Discard(s.target.CheckpointDir); err != nil {
		return err
	}
	if len(alive) > 0 {
		return s.findAwake(cause.Error())
	}
	s.cold(cause)
	return nil
}

// findAwake takes the container for running; its exit, if it ended, is in the
// exit FIFO.
func (s *service) findAwake(reason string) error {
	s.set(func(st *Status) { st.Reason = reason })
	if s.mainPID() == 0 {
		return nil // created and not yet started: its init does not run yet
	}
	return errors.Join(s.holder.Release(), s.findUnfiltered())
}

// livePIDs lists the container's processes but init and stubs.
func (s *service) livePIDs() ([]int, error) {
	tree, err := checkpoint.ContainerTree(s.target.InitPID)()
	if err != nil {
		return nil, err
	}
	var alive []int
	for _, pid := range tree {
		status, err := proc.ReadStatus(pid, pid)
		if err != nil || status.State == 'Z' {
			continue
		}
		if status.Name == checkpoint.StubName {
			if err := killAll([]int{pid}); err != nil {
				return nil, err
			}
			continue
		}
		alive = append(alive, pid)
	}
	return alive, nil
}

// mainPID is the first process below init that is no stub; 0 if there is none.
func (s *service) mainPID() int {
	children, err := proc.Children(s.target.InitPID)
	if err != nil {
		return 0
	}
	for _, pid := range children {
		if status, err := proc.ReadStatus(pid, pid); err == nil && status.Name != checkpoint.StubName {
			return pid
		}
	}
	return 0
}

func allAlive(spec *checkpoint.Spec, alive []int) bool {
	inner := map[int]bool{}
	for _, pid := range alive {
		if status, err := proc.ReadStatus(pid, pid); err == nil {
			inner[status.NSPIDs[len(status.NSPIDs)-1]] = true
		}
	}
	for i := range spec.Processes {
		if !inner[spec.Processes[i].PID] {
			return false
		}
	}
	return true
}

// killAll kills processes by pid and waits for their end.
func killAll(pids []int) error {
	for _, pid := range pids {
		process, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		if err := process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
		process.Release()
	}
	for _, pid := range pids {
		for deadline := time.Now().Add(10 * time.Second); proc.Exists(pid); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				return fmt.Errorf("kill process %d: it does not end", pid)
			}
		}
	}
	return nil
}

// exited handles a report of init.
func (s *service) exited(record exitRecord) {
	if !s.ended(record) {
		return
	}
	s.set(func(st *Status) {
		st.State, st.Since = host.Exited, time.Now()
		st.Exited, st.ExitCode, st.MainPID = true, record.code(), 0
		st.Reason = record.String()
	})
	s.event(host.EventExit, record.String(), map[string]string{"exit_code": fmt.Sprint(record.code())})
}

// ended tells the application's own end from the kills that sleeping, and
// wakes that failed, consist of. Their reports may come late, even after the
// next wake: the truth is whether the process is there.
func (s *service) ended(record exitRecord) bool {
	switch s.snapshot().State {
	case host.Sleeping, host.Asleep, host.Waking, host.Exited:
		return false
	}
	children, err := proc.Children(s.target.InitPID)
	if err != nil {
		return true // init is gone, and everything with it
	}
	for _, pid := range children {
		status, err := proc.ReadStatus(pid, pid)
		if err == nil && status.State != 'Z' && status.NSPIDs[len(status.NSPIDs)-1] == record.pid {
			return false
		}
	}
	return true
}

// set changes the status that others read.
func (s *service) set(change func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
}

// snapshot returns the status.
func (s *service) snapshot() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.State == host.Awake && s.status.MainPID == 0 {
		s.status.MainPID = s.mainPID()
	}
	return s.status
}

func (s *service) event(what host.EventType, reason string, attrs map[string]string) {
	s.emit(host.Event{Time: time.Now(), Type: what, Project: s.target.Project, Service: s.target.Service,
		Container: s.target.ID, Reason: reason, Attrs: attrs})
}

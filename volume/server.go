package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"torpor/block/backing"
	"torpor/host"
	"torpor/kernel/aio"
	"torpor/wire"
)

// Config says which log a server serves, and where.
type Config struct {
	StateDir string
	RunDir   string
	Log      LogID
	// Handoff is the descriptor by which a server that executed this one in its
	// place handed over what it had; 0: there was none.
	Handoff int
}

// Server serves one log.
type Server struct {
	config  Config
	lock    *os.File
	events  *wire.Broadcast
	binary  func() (string, error)
	queue   *aio.Queue      // of requests to disks; nil where the kernel has none to give
	serving context.Context // ends with Serve
	// ended is closed by what ends Serve: a removed log, or a command.
	ended   chan struct{}
	endOnce sync.Once
	jobs    sync.WaitGroup

	mu      sync.Mutex // orders all that changes volumes and exports
	state   *State
	log     *openedLog       // nil: not open; it owns its disks
	failure error            // why it is not open
	missing map[string]error // why a disk could not be opened, by its path
	volumes map[string]*openVolume

	happened chan string // what the log did by itself

	jobMu sync.Mutex
	job   *job
}

// NewServer locks the state of a log and opens it, with the exports that should
// exist. A log that can not be opened is one whose status says why: a server
// that only ends could not. Errors: host.ErrExists when another one serves it.
func NewServer(config Config) (*Server, error) {
	s := &Server{config: config, events: wire.NewBroadcast(), ended: make(chan struct{}), happened: make(chan string, eventsWaiting), volumes: map[string]*openVolume{},
		binary: sync.OnceValues(func() (string, error) { return BinarySum("/proc/self/exe") })}
	handed, err := takeHandoff(config.Handoff)
	if err != nil {
		return nil, err
	}
	if handed.Lock != 0 {
		s.lock = os.NewFile(uintptr(handed.Lock), "lock")
	} else if s.lock, err = lockLog(config.StateDir, config.Log); err != nil {
		return nil, err
	}
	if s.state, err = LoadState(config.StateDir, config.Log); err == nil && s.state.Phase == Removed {
		err = fmt.Errorf("serve log %s: it was removed: %w", config.Log, host.ErrNotFound)
	}
	if err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	if config.Handoff == 0 {
		cleanExports(s.exportsDir())
	}
	// Without a queue each request takes a thread; torpor check says so.
	s.queue, _ = aio.NewQueue(backing.QueueRequests)
	if s.state.Phase == Ready {
		s.openLocked(handed)
	}
	return s, nil
}

// lockLog takes the lock that says that somebody has the log open.
func lockLog(stateDir string, id LogID) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(LogDir(stateDir, id), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock log %s: %w", id, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock log %s: another process has it open: %w", id, host.ErrExists), f.Close())
	}
	return f, nil
}

// Serve answers on the log's socket until the context ends, the log is removed
// or Stop was asked for. Then exports are gone and the log is closed.
func (s *Server) Serve(ctx context.Context) error {
	listener, err := wire.Listen(SocketPath(s.config.RunDir, s.config.Log))
	if err != nil {
		return errors.Join(err, s.close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.serving = ctx
	server := &http.Server{Handler: s.routes(), BaseContext: func(net.Listener) context.Context { return ctx }}
	s.jobs.Go(func() { s.observer(ctx) })
	s.resumeRebuild()
	stopped := make(chan struct{})
	go func() { // ends the one below
		defer close(stopped)
		select {
		case <-ctx.Done():
		case <-s.ended:
			// The answer to what ended it is on its way.
			grace, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			s.events.Close()
			_ = server.Shutdown(grace)
		}
		server.Close()
	}()
	err = server.Serve(listener)
	s.end()
	<-stopped
	cancel()
	s.events.Close()
	s.jobs.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, s.close())
}

// end makes Serve return.
func (s *Server) end() { s.endOnce.Do(func() { close(s.ended) }) }

// close lets go of everything. Exports that are in use go too: their users see
// errors from now on, and what was flushed is durable.
func (s *Server) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.closeLogLocked()
	cleanExports(s.exportsDir())
	if s.queue != nil {
		_ = s.queue.Close() // refused only while a disk hangs
	}
	return errors.Join(err, s.lock.Close())
}

// openLocked opens disks and log and makes the exports that should exist. What
// fails is in the status.
func (s *Server) openLocked(handed handoff) {
	s.failure = nil
	disks := s.openDisksLocked()
	log, err := openLog(disks, s.observe)
	if err != nil {
		s.failure = errors.Join(append([]error{err, closeDisks(disks), handed.drop()}, slices.Collect(maps.Values(s.missing))...)...)
		s.tell(host.EventVolume, "", s.failure.Error())
		return
	}
	s.log = log
	s.reconcileLocked()
	s.noteDisksLocked()
	if err := s.save(); err != nil {
		s.tell(host.EventVolume, "", err.Error())
	}
	for name := range s.state.Volumes {
		s.exportLocked(name, handed)
	}
	if err := handed.drop(); err != nil {
		s.tell(host.EventVolume, "", err.Error())
	}
}

// openDisksLocked opens what can be opened of the disks.
func (s *Server) openDisksLocked() []logDisk {
	var disks []logDisk
	s.missing = map[string]error{}
	for _, spec := range s.state.Disks {
		device, err := openDisk(spec, false, s.queue)
		if err != nil {
			s.missing[spec.Path] = err
			continue
		}
		disks = append(disks, logDisk{spec.Path, device})
	}
	return disks
}

func closeDisks(disks []logDisk) error {
	var errs []error
	for _, d := range disks {
		errs = append(errs, d.device.Close())
	}
	return errors.Join(errs...)
}

// reconcileLocked brings the state in line with the log, which knows best what
// volumes there are: a crash may have come between the two.
func (s *Server) reconcileLocked() {
	there := map[string]bool{}
	for _, v := range s.log.Describe().volumes {
		there[v.name] = true
		if s.state.Volumes[v.name] == nil {
			s.state.Volumes[v.name] = &VolumeState{Format: Foreign}
		}
	}
	for name := range s.state.Volumes {
		if !there[name] {
			delete(s.state.Volumes, name)
		}
	}
}

// closeLogLocked ends exports and log.
func (s *Server) closeLogLocked() error {
	var errs []error
	for name, v := range s.volumes {
		errs = append(errs, v.close())
		delete(s.volumes, name)
	}
	if s.log != nil {
		errs = append(errs, s.log.Close()) // with its disks
		s.log = nil
	}
	return errors.Join(errs...)
}

// opened returns the open log, or why there is none.
func (s *Server) openedLocked() (*openedLog, error) {
	switch {
	case s.log != nil:
		return s.log, nil
	case s.failure != nil:
		return nil, s.failure
	case s.state.Phase == New:
		return nil, fmt.Errorf("use log %s: its disks are not formatted: %w", s.state.ID, host.ErrNotFound)
	}
	return nil, fmt.Errorf("use log %s: it is %s: %w", s.state.ID, s.state.Phase, host.ErrNotFound)
}

func (s *Server) save() error { return s.state.Save(s.config.StateDir) }

package hostdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"torpor/block"
	"torpor/host"
	"torpor/kernel/fusedev"
	"torpor/kernel/loop"
)

// State is what another process needs besides the descriptor to go on with an
// export. It is plain data, to be kept as JSON for as long as the kernel runs.
type State struct {
	Version  int
	Name     string
	MountDir string
	Loop     string // path
	ReadOnly bool
	// Suspended: all requests that were read were answered.
	Suspended bool
}

// stateVersion is raised when the protocol with the kernel changes.
const stateVersion = 1

func (s State) backingPath() string { return filepath.Join(s.MountDir, s.Name) }

func (s State) loop() (loop.Device, error) { return loop.Parse(s.Loop) }

// Handle returns what lets another process go on after this one was killed: it
// has to keep the descriptor open. The caller closes it.
func (e *Export) Handle() (State, *os.File, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended != nil {
		return State{}, nil, fmt.Errorf("duplicate export %s: %w", e.state.Name, e.ended)
	}
	file, err := e.server.conn.Duplicate()
	if err != nil {
		return State{}, nil, fmt.Errorf("duplicate export %s: %w", e.state.Name, err)
	}
	return e.state, file, nil
}

// Suspend answers the requests that were read, reads no more, and ends the
// Export. The block device stays, and whoever uses it waits until Resume, in
// this process or one that inherits the descriptor, which is the caller's now.
// The device is not flushed.
func (e *Export) Suspend() (State, *os.File, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended != nil {
		return State{}, nil, fmt.Errorf("suspend %s: %w", e.state.Name, e.ended)
	}
	if err := e.server.stop(); err != nil {
		return State{}, nil, fmt.Errorf("suspend %s: %w", e.state.Name, err)
	}
	e.ended = errors.New("export is suspended")
	state := e.state
	state.Suspended = e.server.answeredAll()
	return state, e.server.conn.File(), nil
}

// Resume goes on with the export of another process that was suspended, or has
// ended (and was waited for) without that. The device has to hold all that the
// other one acknowledged; "Handing over" above says what may be lost even so.
// After a success the descriptor is the Export's.
// Errors: host.ErrKernel, if the other one was not suspended and the kernel can
// not send its requests again (before 6.9): then only Abort is left.
func Resume(dev block.Device, state State, file *os.File) (*Export, error) {
	if err := state.check(dev.Info()); err != nil {
		return nil, fmt.Errorf("resume %s: %w", state.Name, err)
	}
	conn := fusedev.Adopt(file)
	if err := state.connect(conn); err != nil {
		return nil, fmt.Errorf("resume %s: %w", state.Name, err)
	}
	state.Suspended = false
	e := &Export{state: state, server: newServer(dev, conn, state)}
	e.server.start()
	return e, nil
}

func (s State) check(info block.Info) error {
	if s.Version != stateVersion {
		return fmt.Errorf("state of version %d, not %d: %w", s.Version, stateVersion, host.ErrUnsupported)
	}
	if info.ReadOnly && !s.ReadOnly {
		return fmt.Errorf("device has become read-only: %w", host.ErrInvalid)
	}
	d, err := s.loop()
	if err != nil {
		return err
	}
	found, err := d.Info()
	if err == nil && found.BackingPath != s.backingPath() {
		err = fmt.Errorf("%s is attached to %s: %w", d, found.BackingPath, host.ErrNotFound)
	}
	return err
}

// connect sees that the descriptor is this export's, as far as can be told, and
// that no request is lost.
func (s State) connect(conn *fusedev.Connection) error {
	// Nothing may be asked of the file system: nobody answers yet. If it is not
	// there, somebody has unmounted it, and it is still in use.
	if m, err := fusedev.FindAt(s.MountDir); err == nil && m.Subtype == subtype {
		if err := conn.Check(m); err != nil {
			return err
		}
	}
	if s.Suspended {
		return nil
	}
	return conn.Resend()
}

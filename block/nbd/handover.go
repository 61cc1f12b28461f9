package nbd

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
)

// Handover is what another server, in another process, goes on with: plain data
// but for the descriptors, which the caller passes on by his own means. They are
// closed when a program is executed unless he clears that flag.
type Handover struct {
	Listeners   []ListenerState
	Connections []ConnectionState
}

// ListenerState is a listener.
type ListenerState struct {
	File *os.File `json:"-"`
	// Name is the address, as far as people are told it.
	Name string
}

// ConnectionState is a connection in its transmission phase, between two
// requests.
type ConnectionState struct {
	File *os.File `json:"-"`
	// Export is the name.
	Export string
	// Flags, SizeBytes and BlockBytes are what the client was told, and
	// Structured, MetaID (0: none) and Sized what it chose in the handshake.
	Flags      uint16
	SizeBytes  int64
	BlockBytes int
	Structured bool
	MetaID     uint32
	Sized      bool
	// Received is what was read and not handled: requests, the last of which
	// may be incomplete.
	Received []byte
	// Unsent is what the client has yet to be sent, first of all.
	Unsent []byte
}

// Files lists the descriptors in an order that SetFiles knows.
func (h *Handover) Files() []*os.File {
	var files []*os.File
	for i := range h.Listeners {
		files = append(files, h.Listeners[i].File)
	}
	for i := range h.Connections {
		files = append(files, h.Connections[i].File)
	}
	return files
}

// SetFiles gives a handover that was decoded its descriptors, in the order of
// Files.
func (h *Handover) SetFiles(files []*os.File) error {
	if len(files) != len(h.Listeners)+len(h.Connections) {
		return fmt.Errorf("take over NBD server: %d descriptors for %d listeners and %d connections",
			len(files), len(h.Listeners), len(h.Connections))
	}
	for i := range h.Listeners {
		h.Listeners[i].File = files[i]
	}
	for i := range h.Connections {
		h.Connections[i].File = files[len(h.Listeners)+i]
	}
	return nil
}

// Suspend ends the server, like Close, but leaves its listeners and its
// connections without TLS in the transmission phase to whoever resumes them:
// their clients notice a pause. It waits for requests under way in devices, but
// not for clients: what they do not take or have not said yet is handed over,
// which may be as much as ServerSpec.InFlightBytes. Devices are not flushed.
//
// Connections in the handshake are closed: their clients have not been told its
// end yet. So are those with TLS, since their keys are in this process, those
// whose client has just sent a write that is refused, and not yet its data, and
// those whose descriptor can not be copied, which ServerSpec.Ended is told. So
// are listeners that have no descriptor.
//
// After an error the server is closed, and the handover holds what there is: it
// may be resumed.
func (s *Server) Suspend() (*Handover, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	s.closed = true
	listeners := slices.Collect(maps.Keys(s.listeners))
	clear(s.listeners)
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()

	var h Handover
	var errs []error
	for _, l := range listeners {
		file, err := detach(l)
		if err != nil {
			errs = append(errs, fmt.Errorf("suspend listener %s: %w", l.Addr(), err))
			continue
		}
		h.Listeners = append(h.Listeners, ListenerState{File: file, Name: l.Addr().String()})
	}
	interrupt(conns, true)
	s.running.Wait()
	h.Connections = s.kept
	return &h, errors.Join(errs...)
}

// filer is what has a descriptor; File returns a copy.
type filer interface{ File() (*os.File, error) }

// detach closes a listener but for its descriptor.
func detach(l net.Listener) (*os.File, error) {
	defer l.Close()
	f, ok := l.(filer)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	if unix, ok := l.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(false)
	}
	return f.File()
}

// keep takes the state of a connection that has stopped. After an error the
// client has to connect again.
func (s *Server) keep(c *conn) error {
	f, ok := c.accepted.(filer)
	if !ok {
		return fmt.Errorf("hand over connection: %w", errors.ErrUnsupported)
	}
	file, err := f.File()
	if err != nil {
		return fmt.Errorf("hand over connection: %w", err) // out of descriptors
	}
	state := ConnectionState{
		File:   file,
		Export: c.export.Name,
		Flags:  c.flags, SizeBytes: c.sizeBytes, BlockBytes: c.blockBytes,
		Structured: c.structured, Sized: c.sized,
		Received: slices.Concat(c.partial, c.in.remainder()),
		Unsent:   c.out.remainder(),
	}
	if c.meta {
		state.MetaID = metaAllocationID
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, state)
	return nil
}

// Resume goes on with what another server was suspended with. The exports must
// have been added before. It takes the descriptors over, and returns when all is
// under way; a connection that can not be resumed is closed, the others go on,
// and the error tells. Sockets of listeners in the file system are removed by
// Close, whoever made them.
func (s *Server) Resume(h *Handover) error {
	var errs []error
	for _, state := range h.Connections {
		if err := s.resumeConnection(state); err != nil {
			errs = append(errs, fmt.Errorf("resume connection to export %s: %w", state.Export, err))
		}
	}
	for _, state := range h.Listeners {
		if err := s.resumeListener(state); err != nil {
			errs = append(errs, fmt.Errorf("resume listener %s: %w", state.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Server) resumeListener(state ListenerState) error {
	l, err := net.FileListener(state.File)
	state.File.Close()
	if err != nil {
		return err
	}
	if unix, ok := l.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(true)
	}
	if !s.listen(l) {
		l.Close()
		return ErrClosed
	}
	go s.accept(l) // ends by Close, which waits for it
	return nil
}

func (s *Server) resumeConnection(state ConnectionState) error {
	accepted, err := net.FileConn(state.File)
	state.File.Close()
	if err != nil {
		return err
	}
	e := s.find(state.Export)
	if e == nil {
		accepted.Close()
		return errUnknown
	}
	c := newConn(s, accepted)
	c.terms = terms{
		export: e, flags: state.Flags, sizeBytes: state.SizeBytes, blockBytes: state.BlockBytes,
		structured: state.Structured, sized: state.Sized, meta: state.MetaID == metaAllocationID,
	}
	if e.ReadOnly {
		c.flags |= transmitReadOnly
	}
	c.in = newIntake(accepted, state.Received)
	// It is in the transmission phase before the server knows it: if that is
	// suspended at once, it is not taken for one in the handshake.
	err = c.begin(state.Unsent)
	if err == nil {
		err = s.run(c)
	}
	if err != nil {
		c.end(err)
	}
	return err
}

// run starts a connection that was handed over.
func (s *Server) run(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.start(c, func() { c.end(c.transmit()) })
	return nil
}

package nbd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrClosed is what a server says that was closed or suspended.
var ErrClosed = errors.New("server is closed")

// ErrExport is about an export that is not there, or there twice.
var ErrExport = errors.New("no such export, or one more of the same name")

// ServerSpec says how a server works. The zero value is useful.
type ServerSpec struct {
	// TLS is the configuration of clients that start TLS, and says whether they
	// need certificates. nil: they are refused TLS. Versions below 1.2 are not
	// used.
	TLS *tls.Config
	// RequireTLS refuses everything to clients that have not started TLS.
	RequireTLS bool
	// HandshakeTimeout bounds the handshake as a whole. 0: 15 s.
	HandshakeTimeout time.Duration
	// MaxConnections is how many there may be; more are closed at once. Together
	// they may hold as many times InFlightBytes. 0: 256.
	MaxConnections int
	// Workers is how many slow requests of one connection the devices are asked
	// at once. 0: 32.
	Workers int
	// InFlightBytes is how much memory the requests of one connection may hold.
	// At least, and if 0: 64 MiB, which is twice the longest request.
	InFlightBytes int
	// Ended is called once for each connection that ended; the error is nil if
	// the client hung up, or the server was to, or the connection is handed
	// over. It is called from several goroutines and must not wait for the
	// server. nil: nothing.
	Ended func(client net.Addr, err error)
}

// Server serves exports to clients. All methods may be called concurrently.
type Server struct {
	spec ServerSpec

	mu        sync.Mutex
	closed    bool
	exports   map[string]*export
	conns     map[*conn]struct{}
	listeners map[net.Listener]struct{}
	accepted  uint64
	refused   uint64
	kept      []ConnectionState // while suspending

	running sync.WaitGroup // connections, and listeners that were resumed
}

// Stats are counts of a server.
type Stats struct {
	Connections int    // now
	Accepted    uint64 // connections, since the server began
	Refused     uint64 // connections that were too many
	Exports     map[string]ExportStats
}

// New makes a server without exports and listeners.
func New(spec ServerSpec) (*Server, error) {
	if spec.RequireTLS && spec.TLS == nil {
		return nil, errors.New("make NBD server: TLS is required and not configured")
	}
	if spec.TLS != nil {
		spec.TLS = spec.TLS.Clone()
		spec.TLS.MinVersion = max(spec.TLS.MinVersion, tls.VersionTLS12)
	}
	setDefault(&spec.HandshakeTimeout, 15*time.Second)
	setDefault(&spec.MaxConnections, 256)
	setDefault(&spec.Workers, 32)
	spec.InFlightBytes = max(spec.InFlightBytes, 2*maxPayloadBytes)
	return &Server{
		spec:      spec,
		exports:   map[string]*export{},
		conns:     map[*conn]struct{}{},
		listeners: map[net.Listener]struct{}{},
	}, nil
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// Add lets clients use a device from now on. Errors: ErrExport, ErrClosed.
func (s *Server) Add(e Export) error {
	added, err := newExport(e)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("add export %s: %w", e.Name, ErrClosed)
	}
	if _, there := s.exports[e.Name]; there {
		return fmt.Errorf("add export %s: %w", e.Name, ErrExport)
	}
	s.exports[e.Name] = added
	return nil
}

// Remove ends an export and disconnects its clients. It waits for the requests
// that are under way; when it returns the device is not used any more. Errors:
// ErrExport.
func (s *Server) Remove(name string) error {
	s.mu.Lock()
	e, there := s.exports[name]
	if !there {
		s.mu.Unlock()
		return fmt.Errorf("remove export %s: %w", name, ErrExport)
	}
	delete(s.exports, name)
	conns := slices.Collect(maps.Keys(e.conns))
	s.mu.Unlock()
	interrupt(conns, false)
	return nil
}

// interrupt ends connections and waits for their ends.
func interrupt(conns []*conn, keep bool) {
	for _, c := range conns {
		c.interrupt(keep)
	}
	for _, c := range conns {
		<-c.done
	}
}

// Serve accepts clients from a listener, which it takes over, until that fails
// or the server is closed or suspended: then it returns ErrClosed.
func (s *Server) Serve(l net.Listener) error {
	if !s.listen(l) {
		l.Close()
		return ErrClosed
	}
	return s.accept(l)
}

func (s *Server) listen(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.listeners[l] = struct{}{}
	s.running.Add(1)
	return true
}

func (s *Server) accept(l net.Listener) error {
	defer s.running.Done()
	const longestPause = time.Second
	for pause := time.Millisecond; ; {
		accepted, err := l.Accept()
		var temporary interface{ Temporary() bool }
		switch {
		case err == nil:
			pause = time.Millisecond
			s.admit(accepted)
		case s.isClosed():
			return ErrClosed
		case errors.As(err, &temporary) && temporary.Temporary() && !errors.Is(err, net.ErrClosed):
			time.Sleep(pause) // out of descriptors or memory
			pause = min(2*pause, longestPause)
		default:
			s.mu.Lock()
			delete(s.listeners, l)
			s.mu.Unlock()
			l.Close()
			return fmt.Errorf("accept NBD client: %w", err)
		}
	}
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// admit serves a client unless there are too many.
func (s *Server) admit(accepted net.Conn) {
	c := newConn(s, accepted)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= s.spec.MaxConnections {
		s.refused++
		accepted.Close()
		return
	}
	s.accepted++
	s.start(c, c.run)
}

// start runs a connection. Called with the lock held.
func (s *Server) start(c *conn, run func()) {
	s.conns[c] = struct{}{}
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		run()
	}()
}

// attach notes that a connection uses its export, if that is still there.
func (s *Server) attach(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exports[c.export.Name] != c.export {
		return false
	}
	c.export.conns[c] = struct{}{}
	return true
}

// forget ends the account of a connection.
func (s *Server) forget(c *conn, err error) {
	s.mu.Lock()
	delete(s.conns, c)
	if c.export != nil {
		delete(c.export.conns, c)
	}
	s.mu.Unlock()
	if s.spec.Ended != nil {
		s.spec.Ended(c.accepted.RemoteAddr(), err)
	}
}

// Close closes the listeners, disconnects the clients after the requests that
// are under way, and waits for all of it.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	listeners := slices.Collect(maps.Keys(s.listeners))
	clear(s.listeners)
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	var errs []error
	for _, l := range listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	interrupt(conns, false)
	s.running.Wait()
	return errors.Join(errs...)
}

// Stats counts what there is and was.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := Stats{Connections: len(s.conns), Accepted: s.accepted, Refused: s.refused, Exports: map[string]ExportStats{}}
	for name, e := range s.exports {
		es := e.counts.stats()
		es.Connections = len(e.conns)
		stats.Exports[name] = es
	}
	return stats
}

// find implements catalog: the empty name means the only export.
func (s *Server) find(name string) *export {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, there := s.exports[name]; there || name != "" || len(s.exports) != 1 {
		return e
	}
	for _, e := range s.exports {
		return e
	}
	return nil
}

func (s *Server) list() []*export {
	s.mu.Lock()
	defer s.mu.Unlock()
	byName := func(a, b *export) int { return strings.Compare(a.Name, b.Name) }
	return slices.SortedFunc(maps.Values(s.exports), byName)
}

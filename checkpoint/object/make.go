package object

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"torpor/kernel/eventfile"
	"torpor/kernel/openfile"
	"torpor/kernel/pidfd"
	"torpor/kernel/socket"
	"torpor/kernel/visit"
)

// MakeOptions say what is different in the new container.
type MakeOptions struct {
	// Addresses maps addresses of the container that was described to those of
	// the one that open files are made in.
	Addresses map[netip.Addr]netip.Addr
}

// maker is one Make in progress. It runs on a thread with the container's
// network namespace and root directory, where paths of the host do not exist.
type maker struct {
	MakeOptions
	container Container
	dir       int // the checkpoint's directory, O_PATH
	specs     []Spec
	fds       []int // -1: not made yet
	root      *openfile.Root
	process   *os.File // pidfd of init
	resetter  *socket.Resetter
}

// Make makes what Specs describe: for each a descriptor, close-on-exec, that the
// caller owns; the same open file is duplicated. On an error nothing is left
// open. Content is copied, so one checkpoint may be made several times, also at
// once. The Specs are validated first. Errors: host.ErrCorrupt where a file is
// not the one that was described.
func Make(c Container, dir string, specs []Spec, o MakeOptions) (fds []int, err error) {
	if err := Validate(specs); err != nil {
		return nil, err
	}
	m := &maker{MakeOptions: o, container: c, specs: specs, fds: make([]int, len(specs)), dir: -1}
	for i := range m.fds {
		m.fds[i] = -1
	}
	defer func() {
		if err = errors.Join(err, m.close()); err != nil {
			m.abandon()
			fds = nil
		}
	}()
	if err := m.open(dir); err != nil {
		return nil, err
	}
	return m.fds, visit.Do(c.PID, visit.Network|visit.Root, m.run)
}

// open opens all that is on the host's side.
func (m *maker) open(dir string) (err error) {
	if m.root, err = openfile.OpenRoot(m.container.PID); err != nil {
		return err
	}
	if m.process, err = pidfd.Open(m.container.PID); err != nil {
		return err
	}
	if m.dir, err = openHost(dir, openfile.OpenPath|syscall.O_DIRECTORY); err != nil {
		return err
	}
	for i := range m.specs {
		if s := &m.specs[i]; s.Kind == KindNamespace && s.Same < 0 {
			if m.fds[i], err = m.makeNamespace(s); err != nil {
				return err
			}
		}
	}
	return nil
}

func openHost(path string, flags int) (int, error) {
	fd, err := syscall.Open(path, flags|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, nil
}

// openDir opens a file of the checkpoint's directory for reading.
func (m *maker) openDir(name string) (int, error) {
	fd, err := syscall.Openat(m.dir, name, syscall.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s of the checkpoint: %w", name, err)
	}
	return fd, nil
}

// close releases what only the making needed.
func (m *maker) close() error {
	var errs []error
	if m.root != nil {
		errs = append(errs, m.root.Close())
	}
	if m.process != nil {
		errs = append(errs, m.process.Close())
	}
	if m.dir >= 0 {
		errs = append(errs, syscall.Close(m.dir))
	}
	if m.resetter != nil {
		errs = append(errs, m.resetter.Close())
	}
	return errors.Join(errs...)
}

// abandon closes what was made, after an error.
func (m *maker) abandon() {
	for i, fd := range m.fds {
		if fd < 0 {
			continue
		}
		if m.specs[i].Kind == KindSocket {
			_ = socket.Abandon(fd) // else closing may wait, as the program had chosen
		}
		syscall.Close(fd)
	}
}

// run makes everything in an order in which nothing is in the way of another:
// what has addresses of its own, connections, the content of sockets, locks.
func (m *maker) run() error {
	for _, step := range []func(i int) error{m.make, m.connect, m.fill, m.finish} {
		for i := range m.specs {
			if m.specs[i].Same >= 0 {
				continue
			}
			if err := step(i); err != nil {
				return fmt.Errorf("make open file %d: %w", i, err)
			}
		}
	}
	for i := range m.specs {
		if same := m.specs[i].Same; same >= 0 {
			var err error
			if m.fds[i], err = openfile.Duplicate(m.fds[same]); err != nil {
				return err
			}
		}
	}
	return nil
}

// make makes one that was not made together with an earlier one.
func (m *maker) make(i int) (err error) {
	s := &m.specs[i]
	if m.fds[i] >= 0 {
		return nil
	}
	switch s.Kind {
	case KindStandard:
		m.fds[i], err = m.makeStandard(s)
	case KindFile:
		m.fds[i], err = m.makeFile(s)
	case KindContent:
		return m.makeContent(s.Content)
	case KindPipe:
		return m.makePipe(s)
	case KindSocket:
		return m.makeSocket(i)
	case KindEvents:
		m.fds[i], err = eventfile.NewSet()
	case KindCounter:
		m.fds[i], err = eventfile.NewCounter(s.Counter.Count, s.Counter.Semaphore)
	case KindTimer:
		m.fds[i], err = s.Timer.make()
	case KindSignals:
		m.fds[i], err = eventfile.NewSignals(s.Signals)
	case KindWatches:
		m.fds[i], err = makeWatches(s.Watches)
	}
	return err
}

// finish sets what all open files have: status flags, signal, locks.
func (m *maker) finish(i int) error {
	s, fd := &m.specs[i], m.fds[i]
	switch s.Kind {
	case KindSocket, KindEvents, KindCounter, KindTimer, KindSignals, KindWatches:
		if err := openfile.SetFlags(fd, s.Flags); err != nil {
			return err
		}
	case KindStandard:
		return nil // its locks and flags are the container's
	}
	if s.Signal != 0 {
		if err := openfile.SetSignal(fd, s.Signal); err != nil {
			return err
		}
	}
	if err := s.lock(fd); err != nil {
		return fmt.Errorf("%s: %w", s.named(), err)
	}
	return nil
}

// named is how a Spec is called in messages.
func (s *Spec) named() string {
	switch {
	case s.File != nil:
		return s.File.Path
	case s.Content != nil:
		return string(s.Content.Name)
	}
	return string(s.Kind)
}

// readdressed is an address in the new container.
func (m *maker) readdressed(a netip.Addr) netip.Addr {
	now, ok := m.Addresses[a.Unmap()]
	switch {
	case !ok:
		return a
	case a.Is4In6() && now.Is4():
		return netip.AddrFrom16(now.As16())
	}
	return now
}

func (m *maker) endpoint(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(m.readdressed(a.Addr()), a.Port())
}

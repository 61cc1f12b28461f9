package object

import (
	"errors"
	"fmt"
	"syscall"

	"torpor/kernel/openfile"
	"torpor/kernel/pipe"
)

func (s *Spec) reads() bool  { return s.Flags&syscall.O_ACCMODE != syscall.O_WRONLY }
func (s *Spec) writes() bool { return s.Flags&syscall.O_ACCMODE != syscall.O_RDONLY }

// describePipe describes an end of a pipe that no path leads to.
func (d *describer) describePipe(i int) error {
	s, st := &d.specs[i], &d.stats[i]
	if stream := d.streams.find(st); stream >= 0 {
		s.Kind, s.Standard = KindStandard, stream
		return nil
	}
	id, known := d.pipes[openfile.IdentityOf(st)]
	if !known {
		id = len(d.pipes)
		d.pipes[openfile.IdentityOf(st)] = id
	}
	s.Kind, s.Pipe = KindPipe, &PipeSpec{ID: id}
	var err error
	s.Pipe.CapacityBytes, err = pipe.Capacity(d.open[i].FD)
	return err
}

// lonePipes reads what is in the pipes, and refuses those whose other end is
// somewhere else.
func (d *describer) lonePipes() error {
	for id := range len(d.pipes) {
		if err := d.fillOf(id); err != nil {
			return err
		}
	}
	return nil
}

func (d *describer) fillOf(id int) error {
	first, reader, writer := pipeEnds(d.specs, id)
	lone, isWriter := -1, false
	switch {
	case writer < 0:
		lone = reader
	case reader < 0:
		lone, isWriter = writer, true
	}
	if lone >= 0 {
		alone, err := pipe.Alone(d.open[lone].FD, isWriter)
		if err != nil {
			return err
		}
		if !alone {
			d.refuse(lone, "a pipe whose other end is outside")
			return nil
		}
	}
	if reader < 0 {
		return nil
	}
	unread, err := pipe.Peek(d.open[reader].FD)
	if err != nil {
		return err
	}
	p := d.specs[first].Pipe
	p.Unread, p.Packets = unread, len(unread) > 1 || writer >= 0 && d.specs[writer].Flags&openfile.OpenDirect != 0
	return d.contents.add(d, first, "a pipe", sizeOf(unread))
}

// pipeEnds returns the first Spec with the ID of a pipe, and the first that
// reads and that writes; -1: there is none.
func pipeEnds(specs []Spec, id int) (first, reader, writer int) {
	first, reader, writer = -1, -1, -1
	for i := range specs {
		s := &specs[i]
		if s.Same >= 0 || s.Kind != KindPipe || s.Pipe.ID != id {
			continue
		}
		if first < 0 {
			first = i
		}
		if reader < 0 && s.reads() {
			reader = i
		}
		if writer < 0 && s.writes() {
			writer = i
		}
	}
	return first, reader, writer
}

func sizeOf(chunks [][]byte) int64 {
	var n int64
	for _, c := range chunks {
		n += int64(len(c))
	}
	return n
}

// describeNamedPipe describes one that a path leads to.
func (d *describer) describeNamedPipe(i int) error {
	s := &d.specs[i]
	s.Kind, s.File = KindFile, &FileSpec{Path: d.open[i].Target}
	if s.Flags&openfile.OpenPath != 0 || !s.reads() {
		return nil
	}
	n, err := pipe.Unread(d.open[i].FD)
	if err == nil && n > 0 {
		d.refuse(i, "the named pipe %s, with %d unread bytes", d.open[i].Target, n)
	}
	return err
}

// openNamedPipe opens one without waiting for its other end.
func (m *maker) openNamedPipe(found int, s *Spec) (int, error) {
	fd, err := m.root.Reopen(found, s.openFlags())
	if !errors.Is(err, syscall.ENXIO) {
		return fd, err
	}
	// A writer needs a reader, if only for a moment.
	reader, err := m.root.Reopen(found, syscall.O_RDONLY|syscall.O_NONBLOCK)
	if err != nil {
		return -1, err
	}
	defer syscall.Close(reader)
	return m.root.Reopen(found, s.openFlags())
}

// makePipe makes a pipe with all of its ends; s is the first of them.
func (m *maker) makePipe(s *Spec) (err error) {
	read, write, err := pipe.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, syscall.Close(read), syscall.Close(write)) }()
	if err := pipe.SetCapacity(write, s.Pipe.CapacityBytes); err != nil {
		return err
	}
	if s.Pipe.Packets {
		if err := openfile.SetFlags(write, syscall.O_NONBLOCK|openfile.OpenDirect); err != nil {
			return err
		}
	}
	if err := pipe.Fill(write, s.Pipe.Unread); err != nil {
		return err
	}
	for i := range m.specs {
		end := &m.specs[i]
		if end.Same >= 0 || end.Kind != KindPipe || end.Pipe.ID != s.Pipe.ID {
			continue
		}
		if m.fds[i], err = m.root.Reopen(read, end.Flags&syscall.O_ACCMODE|syscall.O_NONBLOCK); err != nil {
			return fmt.Errorf("open pipe: %w", err)
		}
		if err := openfile.SetFlags(m.fds[i], end.Flags); err != nil {
			return err
		}
	}
	return nil
}

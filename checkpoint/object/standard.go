package object

import (
	"fmt"
	"syscall"

	"torpor/kernel/openfile"
	"torpor/kernel/pidfd"
)

// standardStreams are duplicates of descriptors 0, 1 and 2 of a container's
// init.
type standardStreams struct {
	fds   [3]int
	stats [3]syscall.Stat_t
}

func openStreams(c Container) (s standardStreams, err error) {
	s.fds = [3]int{-1, -1, -1}
	process, err := pidfd.Open(c.PID)
	if err != nil {
		return s, err
	}
	defer process.Close()
	for i := range s.fds {
		if s.fds[i], err = pidfd.GetFD(process, i); err == nil {
			err = syscall.Fstat(s.fds[i], &s.stats[i])
		}
		if err != nil {
			s.close()
			return s, fmt.Errorf("open standard stream %d: %w", i, err)
		}
	}
	return s, nil
}

func (s *standardStreams) close() {
	for _, fd := range s.fds {
		if fd >= 0 {
			syscall.Close(fd)
		}
	}
}

// find returns the stream that is the same file as another open file, -1 if
// none is.
func (s *standardStreams) find(st *syscall.Stat_t) int {
	for i := range s.stats {
		if openfile.IdentityOf(&s.stats[i]) == openfile.IdentityOf(st) {
			return i
		}
	}
	return -1
}

// makeStandard takes a standard stream of the new container. A stream that the
// program had opened again, with other flags, is opened again.
func (m *maker) makeStandard(s *Spec) (int, error) {
	fd, err := pidfd.GetFD(m.process, s.Standard)
	if err != nil {
		return -1, err
	}
	flags, err := openfile.Flags(fd)
	if err != nil || flags&keptFlags == s.Flags {
		return fd, err
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil || st.Mode&syscall.S_IFMT == syscall.S_IFSOCK {
		return fd, err // a socket has no second open file
	}
	defer syscall.Close(fd)
	return m.root.Reopen(fd, s.Flags|syscall.O_NOCTTY)
}

package container

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"torpor/host"
)

// Stdio is how a container's init and application speak with the host: FIFOs
// stdout, stderr and exit, and the datagram socket init.sock, in one
// directory. They are opened here for the container, and by the keeper by
// their names.
type Stdio struct {
	stdin, stdout, stderr *os.File
	exit, socket          *os.File
	console               *consoleSocket
}

// StdioSpec says what a container needs.
type StdioSpec struct {
	Dir       string
	UID, GID  int // owner of stdout and stderr, so that /dev/stdout can be opened
	TTY       bool
	StdinOpen bool // standard input is a FIFO that nobody closes, else /dev/null
}

// NewStdio makes the directory's FIFOs and socket anew and opens them. The
// caller closes it when the container has been created.
func NewStdio(spec StdioSpec) (_ *Stdio, err error) {
	if err := os.MkdirAll(spec.Dir, 0o711); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	s := &Stdio{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.exit, err = newFIFO(filepath.Join(spec.Dir, "exit"), 0, 0); err != nil {
		return nil, err
	}
	if s.socket, err = newSocket(filepath.Join(spec.Dir, "init.sock")); err != nil {
		return nil, err
	}
	if spec.TTY {
		s.console, err = newConsoleSocket(filepath.Join(spec.Dir, "console.sock"))
		return s, err
	}
	if s.stdout, err = newFIFO(filepath.Join(spec.Dir, "stdout"), spec.UID, spec.GID); err != nil {
		return nil, err
	}
	if s.stderr, err = newFIFO(filepath.Join(spec.Dir, "stderr"), spec.UID, spec.GID); err != nil {
		return nil, err
	}
	if spec.StdinOpen {
		s.stdin, err = newFIFO(filepath.Join(spec.Dir, "stdin"), spec.UID, spec.GID)
		return s, err
	}
	s.stdin, err = os.Open(os.DevNull)
	return s, err
}

// newFIFO makes a FIFO and opens it for reading and writing: its writer never
// finds it without a reader, not even while the keeper restarts.
func newFIFO(path string, uid, gid int) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old FIFO: %w", err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("make FIFO %s: %w", path, err)
	}
	if err := os.Chown(path, uid, gid); err != nil {
		return nil, fmt.Errorf("make FIFO: %w", err)
	}
	// Blocking: the application shall wait when nobody reads, not see EAGAIN.
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open FIFO %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// socketPathMost is what sun_path of unix(7) holds before its zero byte.
const socketPathMost = 107

func checkSocketPath(path string) error {
	if len(path) > socketPathMost {
		return fmt.Errorf("make socket %s: its path has %d bytes, at most %d are possible (use a shorter state directory or name): %w", path, len(path), socketPathMost, host.ErrInvalid)
	}
	return nil
}

func newSocket(path string) (*os.File, error) {
	if err := checkSocketPath(path); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("make init's socket: %w", err)
	}
	defer conn.Close()
	return conn.File()
}

// Console waits for the terminal's master that the runtime sends when it
// creates a container with a terminal. The caller closes it. nil without one.
func (s *Stdio) Console() (*os.File, error) {
	if s.console == nil {
		return nil, nil
	}
	return s.console.receive()
}

// Close closes this process's ends; the container has its own.
func (s *Stdio) Close() {
	closeAll(s.stdin, s.stdout, s.stderr, s.exit, s.socket)
	if s.console != nil {
		s.console.close()
	}
}

// consoleSocket receives the master of a terminal from the runtime.
type consoleSocket struct {
	path     string
	listener *net.UnixListener
}

func newConsoleSocket(path string) (*consoleSocket, error) {
	if err := checkSocketPath(path); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make console socket: %w", err)
	}
	return &consoleSocket{path, l}, nil
}

// consoleWait bounds the wait for a terminal: a runtime sends it before it
// reports that the container was created.
const consoleWait = 10 * time.Second

func (c *consoleSocket) receive() (*os.File, error) {
	if err := c.listener.SetDeadline(time.Now().Add(consoleWait)); err != nil {
		return nil, fmt.Errorf("receive terminal: %w", err)
	}
	conn, err := c.listener.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("receive terminal: %w", err)
	}
	defer conn.Close()
	name, rights := make([]byte, 4096), make([]byte, syscall.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(name, rights)
	if err != nil {
		return nil, fmt.Errorf("receive terminal: %w", err)
	}
	messages, err := syscall.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("receive terminal: %d control messages: %w", len(messages), err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive terminal: %d descriptors: %w", len(fds), err)
	}
	syscall.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}

func (c *consoleSocket) close() { c.listener.Close() }

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

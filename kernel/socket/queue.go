package socket

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrDescriptors says that descriptors are on their way through a socket.
var ErrDescriptors = errors.New("descriptors are under way in it")

// messageBytes bounds one message; the kernel's is that of the send buffer.
const messageBytes = 4 << 20

// PeekUnix returns what reads from a Unix socket would return, without taking
// it out: one element a message, for streams the whole at once. Nobody else may
// use the socket meanwhile. Errors: ErrDescriptors.
func PeekUnix(fd, kind int) (messages [][]byte, err error) {
	was, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF)
	if err != nil {
		return nil, fmt.Errorf("peek into socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 0); err != nil {
		return nil, fmt.Errorf("peek into socket: %w", err)
	}
	defer func() {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, was))
	}()
	var stream []byte
	buffer := make([]byte, 64<<10)
	for {
		n, err := peek(fd, kind, buffer)
		switch {
		case err == unix.EAGAIN || err == errEnd:
			if len(stream) > 0 {
				messages = append(messages, stream)
			}
			return messages, nil
		case err == unix.ENOBUFS: // the message is longer
			if len(buffer) >= messageBytes {
				return nil, fmt.Errorf("peek into socket: %w", unix.EMSGSIZE)
			}
			buffer = make([]byte, messageBytes)
			if messages, err = nil, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 0); err != nil {
				return nil, err
			}
		case err != nil:
			return nil, fmt.Errorf("peek into socket: %w", err)
		case kind == Stream:
			stream = append(stream, buffer[:n]...)
		default:
			messages = append(messages, append([]byte{}, buffer[:n]...))
		}
	}
}

// errEnd says that the peer has closed and nothing is left.
var errEnd = errors.New("end")

// peek looks at one message, or at some bytes of a stream.
func peek(fd, kind int, buffer []byte) (int, error) {
	control := make([]byte, 256)
	n, controlBytes, flags, _, err := unix.Recvmsg(fd, buffer, control, unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err == unix.ECONNRESET {
		return 0, errEnd
	}
	if err != nil {
		return 0, err
	}
	if found, err := dropRights(control[:controlBytes]); err != nil || found {
		return 0, errors.Join(ErrDescriptors, err)
	}
	if flags&unix.MSG_TRUNC != 0 {
		return 0, unix.ENOBUFS
	}
	if n == 0 && kind != Datagram {
		return 0, errEnd
	}
	return n, nil
}

// dropRights closes the descriptors that peeking has duplicated.
func dropRights(control []byte) (found bool, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return false, err
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return true, err
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
		found = true
	}
	return found, nil
}

// PeekTCP returns the unread bytes of a TCP connection without taking them out.
func PeekTCP(fd int) ([]byte, error) {
	n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil {
		return nil, fmt.Errorf("peek into connection: %w", err)
	}
	if n == 0 {
		return nil, nil
	}
	b := make([]byte, n)
	got, _, err := unix.Recvfrom(fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err == unix.EAGAIN {
		return nil, nil // SIOCINQ counts the end of the stream as well
	}
	if err != nil {
		return nil, fmt.Errorf("peek into connection: %w", err)
	}
	return b[:got], nil
}

// Send sends messages without waiting, with a send buffer that has room for
// them. What the buffer was set to before is for Options to say.
func Send(fd, kind int, messages [][]byte) error {
	if len(messages) == 0 {
		return nil
	}
	room := 64 << 10
	for _, m := range messages {
		room += 2*len(m) + 4096
	}
	was, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		return fmt.Errorf("fill socket: %w", err)
	}
	if was < room {
		if err := setBuffer(fd, unix.SO_SNDBUF, room); err != nil {
			return fmt.Errorf("fill socket: %w", err)
		}
	}
	for _, m := range messages {
		if err := send(fd, kind, m); err != nil {
			return fmt.Errorf("fill socket with %d bytes: %w", len(m), err)
		}
	}
	if was < room {
		return unlockBuffer(fd, was)
	}
	return nil
}

func send(fd, kind int, message []byte) error {
	for {
		n, err := unix.SendmsgN(fd, message, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if message = message[n:]; len(message) == 0 || kind != Stream {
			return nil
		}
	}
}

// unlockBuffer takes a size of the send buffer back and lets the kernel choose
// again.
func unlockBuffer(fd, was int) error {
	if err := setBuffer(fd, unix.SO_SNDBUF, was/2); err != nil {
		return fmt.Errorf("reset send buffer: %w", err)
	}
	return freeBuffer(fd, sendBufferLock)
}

// Bits of SO_BUF_LOCK: sizes that the kernel does not choose.
const (
	sendBufferLock    = 1
	receiveBufferLock = 2
)

func freeBuffer(fd, lock int) error {
	locked, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if err != nil { // before Linux 5.14
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, locked&^lock); err != nil {
		return fmt.Errorf("reset buffer of socket: %w", err)
	}
	return nil
}

// Poll returns the poll(2) events of a socket among those asked for, and POLLERR
// and POLLHUP; it waits up to so many milliseconds for one.
func Poll(fd int, events int16, waitMs int) (int16, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		_, err := unix.Poll(fds, waitMs)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("poll socket: %w", err)
		}
		return fds[0].Revents, nil
	}
}

// Abandon lets a connection be reset, not waited for, when it is closed.
func Abandon(fd int) error {
	return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// Events of Poll.
const (
	Readable   = unix.POLLIN
	PeerClosed = unix.POLLRDHUP
	Urgent     = unix.POLLPRI
	HungUp     = unix.POLLHUP
	Failed     = unix.POLLERR
)

// TakeError takes out the error that the next call on the socket would give.
func TakeError(fd int) error {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil || n == 0 {
		return err
	}
	return unix.Errno(n)
}

// Shutdown ends one or both directions: bit 0 receiving, bit 1 sending.
func Shutdown(fd, directions int) error {
	if directions&3 == 0 {
		return nil
	}
	how := []int{unix.SHUT_RD, unix.SHUT_WR, unix.SHUT_RDWR}[directions&3-1]
	if err := unix.Shutdown(fd, how); err != nil {
		return fmt.Errorf("shut down socket: %w", err)
	}
	return nil
}

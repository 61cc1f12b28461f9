package nfqueue

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Config says how a queue is opened.
type Config struct {
	Number      uint16
	CopyBytes   uint32 // of each packet
	MaxPackets  uint32 // that wait; more are dropped
	BufferBytes int    // of the socket, where they wait: about 1 KB each
}

// Queue receives the packets of one number.
type Queue struct {
	file    *os.File
	number  uint16
	buffer  []byte
	rest    []byte   // of buffer: messages not looked at yet
	early   [][]byte // packets that came before the answer to the configuration
	verdict [verdictBytes]byte
}

// Packet is one that is held.
type Packet struct {
	ID       uint32
	Bytes    []byte // its beginning, from the IP header; until the next Receive
	LenBytes int    // of all of it
	Device   uint32 // index of the device that it came in by; 0: none
	Leaving  bool   // it was made here: the hook is output
}

// configureTimeout bounds the wait for the kernel's answer.
const configureTimeout = 5 * time.Second

// Open opens a queue in the network namespace of the calling thread. Packets
// are as the network stack has them: joined ones are not cut into segments.
// Errors: EPERM if somebody has the number, or CAP_NET_ADMIN is missing.
func Open(c Config) (*Queue, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open queue %d: %w", c.Number, err)
	}
	// A copy and the largest attributes beside it fit.
	q := &Queue{file: os.NewFile(uintptr(fd), "nfqueue"), number: c.Number, buffer: make([]byte, c.CopyBytes+2048)}
	if err := errors.Join(setUp(fd, c.BufferBytes), q.configure(c)); err != nil {
		q.file.Close()
		return nil, fmt.Errorf("open queue %d: %w", c.Number, err)
	}
	return q, nil
}

func setUp(fd, bufferBytes int) error {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	// A full buffer drops packets. With an error as well, the kernel would drop
	// all further ones until the buffer is empty.
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1); err != nil {
		return err
	}
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferBytes)
	if errors.Is(err, unix.EPERM) { // not the host's user namespace
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bufferBytes)
	}
	return err
}

// configure takes the number and says what is wanted in one message. Packets
// may come before the answer; they are kept.
func (q *Queue) configure(c Config) error {
	if _, err := q.file.Write(configuration(c)); err != nil {
		return err
	}
	if err := q.file.SetReadDeadline(time.Now().Add(configureTimeout)); err != nil {
		return err
	}
	for {
		m, err := q.next()
		if err != nil {
			return err
		}
		if errno, ok := m.answer(); ok {
			if errno == unix.EPERM {
				return fmt.Errorf("is taken, or not allowed: %w", errno)
			}
			if errno != 0 {
				return errno
			}
			return q.file.SetReadDeadline(time.Time{})
		}
		q.early = append(q.early, append([]byte{}, m...))
	}
}

// next returns the next message.
func (q *Queue) next() (message, error) {
	if len(q.rest) == 0 {
		n, err := q.file.Read(q.buffer)
		if err != nil {
			return nil, err
		}
		q.rest = q.buffer[:n]
	}
	m, rest, err := cutMessage(q.rest)
	q.rest = rest
	return m, err
}

// Receive waits for a packet. Errors: os.ErrDeadlineExceeded after Stop,
// os.ErrClosed.
func (q *Queue) Receive() (Packet, error) {
	for {
		var m message
		if len(q.early) > 0 {
			m, q.early = q.early[0], q.early[1:]
		} else {
			var err error
			if m, err = q.next(); err != nil {
				return Packet{}, fmt.Errorf("receive from queue %d: %w", q.number, err)
			}
		}
		if p, ok := m.packet(); ok {
			return p, nil
		}
	}
}

// Accept lets a packet go on; behind it are the rules after this one.
func (q *Queue) Accept(id uint32) error { return q.decide(id, verdictAccept) }

// Drop ends a packet.
func (q *Queue) Drop(id uint32) error { return q.decide(id, verdictDrop) }

func (q *Queue) decide(id, verdict uint32) error {
	putVerdict(&q.verdict, q.number, id, verdict)
	if _, err := q.file.Write(q.verdict[:]); err != nil {
		return fmt.Errorf("give verdict to queue %d: %w", q.number, err)
	}
	return nil
}

// Stop ends a Receive that waits, and all later ones. The queue is still held,
// and so are packets in it.
func (q *Queue) Stop() error { return q.file.SetReadDeadline(time.Unix(1, 0)) }

// Close gives the number up; the kernel drops the packets that wait.
func (q *Queue) Close() error { return q.file.Close() }

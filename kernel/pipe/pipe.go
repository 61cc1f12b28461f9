// Package pipe makes pipes and looks into them.
//
// Functions take descriptors of this process, hold no state and may be called
// concurrently for different pipes.
package pipe

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// New makes a pipe, close-on-exec, for which nobody waits. The caller owns both
// descriptors.
func New() (read, write int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, -1, fmt.Errorf("make pipe: %w", err)
	}
	return fds[0], fds[1], nil
}

// Capacity returns how many bytes a pipe holds.
func Capacity(fd int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return 0, fmt.Errorf("read capacity of pipe: %w", err)
	}
	return n, nil
}

// SetCapacity sets how many bytes a pipe holds. Errors: EPERM above
// /proc/sys/fs/pipe-max-size without CAP_SYS_RESOURCE.
func SetCapacity(fd, lenBytes int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, lenBytes); err != nil {
		return fmt.Errorf("set capacity of pipe to %d bytes: %w", lenBytes, err)
	}
	return nil
}

// Unread returns how many bytes wait in a pipe; fd is its reading end.
func Unread(fd int) (int, error) {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0, fmt.Errorf("read fill of pipe: %w", err)
	}
	return n, nil
}

// Alone reports whether an end of a pipe has no other end left: a reader would
// get the end of the file, a writer EPIPE.
func Alone(fd int, writer bool) (bool, error) {
	want := int16(unix.POLLHUP)
	if writer {
		want = unix.POLLERR
	}
	fds := []unix.PollFd{{Fd: int32(fd)}}
	for {
		_, err := unix.Poll(fds, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("poll pipe: %w", err)
		}
		return fds[0].Revents&want != 0, nil
	}
}

// Peek returns what reads from a pipe would return, without taking it out; fd
// is its reading end. In packet mode each element is a packet.
func Peek(fd int) (chunks [][]byte, err error) {
	left, err := Unread(fd)
	if err != nil || left == 0 {
		return nil, err
	}
	capacity, err := Capacity(fd)
	if err != nil {
		return nil, err
	}
	from, to, err := New()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unix.Close(from), unix.Close(to)) }()
	// As many slots as the original, so that all of it fits.
	if err := SetCapacity(to, capacity); err != nil {
		return nil, err
	}
	if _, err := unix.Tee(fd, to, left, unix.SPLICE_F_NONBLOCK); err != nil {
		return nil, fmt.Errorf("copy pipe: %w", err)
	}
	buffer := make([]byte, left)
	for left > 0 {
		n, err := unix.Read(from, buffer)
		if err != nil {
			return nil, fmt.Errorf("copy pipe, %d bytes short: %w", left, err)
		}
		chunks, left = append(chunks, append([]byte(nil), buffer[:n]...)), left-n
	}
	return chunks, nil
}

// Fill writes chunks, each as one packet if the writing end fd has O_DIRECT.
// The end must have O_NONBLOCK.
func Fill(fd int, chunks [][]byte) error {
	for _, chunk := range chunks {
		for len(chunk) > 0 {
			n, err := unix.Write(fd, chunk)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return fmt.Errorf("fill pipe: %w", err)
			}
			chunk = chunk[n:]
		}
	}
	return nil
}

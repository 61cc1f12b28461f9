package fusedev

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"torpor/host"
)

// Notifications, from linux/fuse.h.
const (
	notifyRetrieve = 5
	notifyResend   = 7
)

// Wake makes one reader return from Read, with a request that needs no answer
// (FUSE_NOTIFY_REPLY): it asks the kernel for 0 bytes of its cache of a node,
// a file that is in use (unix.ENOENT). If nobody reads, the request waits for the next one who does.
func (c *Connection) Wake(node uint64) error {
	body := binary.LittleEndian.AppendUint64(nil, 0) // notify_unique
	body = binary.LittleEndian.AppendUint64(body, node)
	body = binary.LittleEndian.AppendUint64(body, 0) // offset
	body = binary.LittleEndian.AppendUint64(body, 0) // size, padding
	if err := c.notify(notifyRetrieve, body); err != nil {
		return fmt.Errorf("wake FUSE reader: %w", err)
	}
	return nil
}

// Resend makes the kernel send all requests again that were read and not
// answered, because whoever read them has gone. Their numbers have another top
// bit then. A request that was just being read when the reader was killed may
// have failed with EIO instead: the kernel makes no page of a buffer present for
// a process that is being killed. Least kernel: 6.9, else host.ErrKernel.
func (c *Connection) Resend() error {
	err := c.notify(notifyResend, nil)
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("resend FUSE requests: %w: %w", host.ErrKernel, err)
	}
	if err != nil {
		return fmt.Errorf("resend FUSE requests: %w", err)
	}
	return nil
}

// notify sends what is no answer: the number of the request is 0, and where
// answers have an error is the kind.
func (c *Connection) notify(kind uint32, body []byte) error {
	const headerBytes = 16
	message := binary.LittleEndian.AppendUint32(nil, uint32(headerBytes+len(body)))
	message = binary.LittleEndian.AppendUint32(message, kind)
	message = binary.LittleEndian.AppendUint64(message, 0)
	_, err := unix.Write(c.fd, append(message, body...))
	return err
}

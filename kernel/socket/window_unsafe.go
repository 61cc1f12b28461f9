package socket

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// window is struct tcp_repair_window of linux/tcp.h.
type window struct{ sentAt, sent, max, received, receivedAt uint32 }

// copyWindow lets the end of a connection send what the other end is ready to
// receive. Both are in repair mode.
func copyWindow(fd, other int) error {
	var mine, theirs window
	for _, w := range []struct {
		fd   int
		into *window
	}{{fd, &mine}, {other, &theirs}} {
		b := unsafe.Slice((*byte)(unsafe.Pointer(w.into)), unsafe.Sizeof(*w.into))
		if _, err := getRaw(w.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, b); err != nil {
			return err
		}
	}
	mine.sent, mine.max, mine.sentAt = theirs.received, theirs.received, mine.receivedAt
	return setRaw(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, unsafe.Slice((*byte)(unsafe.Pointer(&mine)), unsafe.Sizeof(mine)))
}

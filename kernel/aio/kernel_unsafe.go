package aio

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// contextID is aio_context_t.
type contextID uintptr

// control is struct iocb of linux/aio_abi.h, of little-endian machines.
type control struct {
	Data     uint64
	Key      uint32
	Flags    uint32
	Opcode   uint16
	Priority int16
	FD       uint32
	Buffer   uint64
	Bytes    uint64
	Offset   int64
	_        uint64
	_        uint32
	_        uint32
}

// event is struct io_event.
type event struct {
	Data   uint64
	Object uint64
	Result int64
	_      int64
}

// Opcodes: IOCB_CMD_*.
const (
	opRead        = 0
	opWrite       = 1
	opReadVector  = 7
	opWriteVector = 8
)

func (c *contextID) setup(requests int) error {
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(requests), uintptr(unsafe.Pointer(c)), 0); errno != 0 {
		return errno
	}
	return nil
}

// destroy waits for all requests.
func (c contextID) destroy() { unix.Syscall(unix.SYS_IO_DESTROY, uintptr(c), 0, 0) }

// prepare fills in what the kernel reads when the request is submitted. Memory of
// Go stays where it is, and the slot keeps it.
func (s *slot) prepare(index uint64) {
	r := &s.request
	s.control = control{Data: index, FD: uint32(r.FD), Offset: r.Offset}
	if r.Durable {
		s.control.Flags |= unix.RWF_DSYNC
	}
	if r.NoWait {
		s.control.Flags |= unix.RWF_NOWAIT
	}
	if r.Write {
		s.control.Opcode = opWrite
	}
	if len(r.Memory) == 1 {
		s.control.Buffer = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(r.Memory[0]))))
		s.control.Bytes = uint64(len(r.Memory[0]))
		return
	}
	s.control.Opcode += opReadVector
	s.vector = s.vector[:0]
	for _, b := range r.Memory {
		v := unix.Iovec{Base: unsafe.SliceData(b)}
		v.SetLen(len(b))
		s.vector = append(s.vector, v)
	}
	s.control.Buffer = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(s.vector))))
	s.control.Bytes = uint64(len(s.vector))
}

func (c contextID) submit(request *control) unix.Errno {
	list := [1]*control{request}
	for {
		_, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, uintptr(c), 1, uintptr(unsafe.Pointer(&list)))
		runtime.KeepAlive(request)
		if errno != unix.EINTR {
			return errno
		}
	}
}

// wait returns how many events there are, at least one.
func (c contextID) wait(events []event) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, uintptr(c), 1, uintptr(len(events)), uintptr(unsafe.Pointer(unsafe.SliceData(events))), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

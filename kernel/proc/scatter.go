package proc

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Patch is bytes for one place in a process's memory.
type Patch struct {
	Addr  Addr
	Bytes []byte // at least one
}

// Scatter writes patches to writable memory, many in one system call: some
// 10 times as fast as WriteAt for places of a few bytes. After an error some
// may have been written.
func (m *Memory) Scatter(patches []Patch) error {
	const most = 1024 // UIO_MAXIOV
	for len(patches) > 0 {
		n := min(len(patches), most)
		if err := m.scatter(patches[:n]); err != nil {
			return err
		}
		patches = patches[n:]
	}
	return nil
}

func (m *Memory) scatter(patches []Patch) error {
	local, remote := make([]unix.Iovec, len(patches)), make([]unix.RemoteIovec, len(patches))
	total := 0
	for i, p := range patches {
		local[i] = unix.Iovec{Base: &p.Bytes[0], Len: uint64(len(p.Bytes))}
		remote[i] = unix.RemoteIovec{Base: uintptr(p.Addr), Len: len(p.Bytes)}
		total += len(p.Bytes)
	}
	n, err := unix.ProcessVMWritev(m.pid, local, remote, 0)
	if err == nil && n != total {
		err = fmt.Errorf("%d of %d bytes: %w", n, total, unix.EFAULT)
	}
	if err != nil {
		return fmt.Errorf("write memory at %x and elsewhere: %w", uint64(patches[0].Addr), err)
	}
	return nil
}

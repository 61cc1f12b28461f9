package socket

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Deafness keeps packets from sockets. It may be used concurrently. Close it;
// sockets stay deaf.
type Deafness struct {
	denyAll *ebpf.Program
}

// NewDeafness loads a program that accepts no byte of any packet, once: one of
// classic BPF, which each socket translates and compiles anew, takes 8
// microseconds to attach.
func NewDeafness() (*Deafness, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "torpor_deaf", Type: ebpf.SocketFilter, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("load program that keeps packets from sockets: %w", err)
	}
	return &Deafness{program}, nil
}

// Close releases the program.
func (d *Deafness) Close() error { return d.denyAll.Close() }

// Deafen makes a connection drop what arrives, before the kernel looks at it:
// to the peer it is lost on the way. Packets that another processor is working
// on may still arrive; see AwaitPackets. Hear undoes it. The socket must not
// have a filter of its own.
func (d *Deafness) Deafen(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, d.denyAll.FD()); err != nil {
		return fmt.Errorf("keep packets from connection: %w", err)
	}
	return nil
}

// Hear undoes Deafen. A socket that is not deaf is not an error.
func Hear(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil && err != unix.ENOENT {
		return fmt.Errorf("let packets to connection: %w", err)
	}
	return nil
}

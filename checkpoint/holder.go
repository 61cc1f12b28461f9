package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"torpor/checkpoint/object"
	"torpor/kernel/pidfd"
	"torpor/kernel/socket"
)

// firstHeld is the number, in a Holder, of its first held descriptor; see
// blob_amd64.s.
const firstHeld = 6

// passAtMost is the kernel's SCM_MAX_FD.
const passAtMost = 253

// openPath is O_PATH, which package syscall lacks.
const openPath = 0x200000

// Holder is a process that runs blob.InitELF: a container's init, or one
// started by Hold. It holds descriptors while the processes that used them do
// not exist. The protocol is in DESIGN.md.
type Holder struct {
	PID    int    // in this process's pid namespace
	Socket string // path of its datagram socket
	Kept   int    // descriptors given to it for good, before the parked ones
}

// Park gives duplicates of descriptors to the holder, in this order, behind
// those already parked.
func (h *Holder) Park(fds []int) error {
	for sent := 0; sent < len(fds); {
		n := min(len(fds)-sent, passAtMost)
		held, err := h.send([]byte{'p'}, fds[sent:sent+n])
		if err != nil {
			return err
		}
		if sent += n; held < sent {
			// The kernel drops what exceeds the init's limit.
			return fmt.Errorf("park %d descriptors: init holds %d: %w", sent, held, syscall.EMFILE)
		}
	}
	return nil
}

// Keep gives descriptors that stay when the parked ones are released. Nothing
// may be parked yet. Kept does not count them: the caller remembers.
func (h *Holder) Keep(fds []int) error {
	_, err := h.send([]byte{'k'}, fds)
	return err
}

// Adopt tells the holder which child's end it reports: one that it did not
// start itself. pid is that of its own pid namespace.
func (h *Holder) Adopt(pid int) error {
	_, err := h.send(binary.LittleEndian.AppendUint32([]byte{'m'}, uint32(pid)), nil)
	return err
}

// Release closes all parked descriptors.
func (h *Holder) Release() error {
	_, err := h.send([]byte{'c'}, nil)
	return err
}

// Parked returns how many descriptors are parked.
func (h *Holder) Parked() (int, error) { return h.send([]byte{'p'}, nil) }

// Truncate closes the parked descriptors but the first n.
func (h *Holder) Truncate(n int) error {
	held, err := h.send(binary.LittleEndian.AppendUint32([]byte{'t'}, uint32(n)), nil)
	if err == nil && held > n {
		err = fmt.Errorf("release parked descriptors: init holds %d instead of %d: %w", held, n, syscall.EPROTO)
	}
	return err
}

// number is the holder's own number of a parked descriptor.
func (h *Holder) number(s Slot) int { return firstHeld + h.Kept + int(s) }

// TakeKept duplicates a descriptor given by Keep. The caller owns it.
func (h *Holder) TakeKept(n int) (int, error) { return h.take(firstHeld + n) }

// Take duplicates a parked descriptor into this process. The caller owns it.
func (h *Holder) Take(s Slot) (int, error) { return h.take(h.number(s)) }

func (h *Holder) take(number int) (int, error) {
	process, err := pidfd.Open(h.PID)
	if err != nil {
		return -1, err
	}
	defer process.Close()
	return pidfd.GetFD(process, number)
}

// send exchanges one datagram and returns the number of parked descriptors.
func (h *Holder) send(message []byte, fds []int) (int, error) {
	// An empty name is replaced by an abstract one, at which init can answer.
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"})
	if err != nil {
		return 0, fmt.Errorf("reach init at %s: %w", h.Socket, err)
	}
	defer conn.Close()
	var rights []byte
	if len(fds) > 0 {
		rights = syscall.UnixRights(fds...)
	}
	if _, _, err := conn.WriteMsgUnix(message, rights, &net.UnixAddr{Name: h.Socket, Net: "unixgram"}); err != nil {
		return 0, fmt.Errorf("send %d descriptors to init: %w", len(fds), err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, err
	}
	var answer [5]byte
	if _, err := conn.Read(answer[:]); err != nil {
		return 0, fmt.Errorf("wait for init's answer: %w", err)
	}
	if answer[0] != message[0] {
		return 0, fmt.Errorf("wait for init's answer: got %q to %q", answer[0], message[0])
	}
	return int(binary.LittleEndian.Uint32(answer[1:])), nil
}

// parking collects duplicates of descriptors on their way to a Holder. The
// number of each is its Slot.
type parking struct {
	holderPID int
	fds       []int
	opens     []object.Open // what each of fds is
	processes map[int]*os.File
}

func newParking(holderPID int) *parking {
	return &parking{holderPID: holderPID, processes: map[int]*os.File{}}
}

// close closes the duplicates; after a successful Park the holder has its own.
func (p *parking) close() error {
	var errs []error
	for _, fd := range p.fds {
		errs = append(errs, syscall.Close(fd))
	}
	for _, process := range p.processes {
		errs = append(errs, process.Close())
	}
	p.fds, p.opens, p.processes = nil, nil, map[int]*os.File{}
	return errors.Join(errs...)
}

func (p *parking) add(o object.Open) Slot {
	p.fds, p.opens = append(p.fds, o.FD), append(p.opens, o)
	return Slot(len(p.fds) - 1)
}

// path parks what a path below /proc/PID leads to.
func (p *parking) path(path string, flags int, use object.Use) (Slot, error) {
	fd, err := syscall.Open(path, flags|syscall.O_CLOEXEC, 0)
	if err != nil {
		return NoSlot, fmt.Errorf("open %s: %w", path, err)
	}
	target, err := os.Readlink(path)
	if err != nil {
		target = path // of our own, no link
	}
	return p.add(object.Open{FD: fd, Use: use, Target: target}), nil
}

// descriptor parks descriptor fd of a process; target is what it leads to.
func (p *parking) descriptor(pid, fd int, target string) (Slot, error) {
	process := p.processes[pid]
	if process == nil {
		var err error
		if process, err = pidfd.Open(pid); err != nil {
			return NoSlot, err
		}
		p.processes[pid] = process
	}
	got, err := pidfd.GetFD(process, fd)
	if err != nil {
		return NoSlot, err
	}
	return p.add(object.Open{FD: got, PID: pid, Number: fd, Use: object.UseDescriptor, Target: target}), nil
}

// connected reports whether a parked descriptor is a TCP socket with a peer.
func (p *parking) connected(s Slot) bool {
	kind, err := socket.KindOf(p.fds[s])
	if err != nil || !kind.Internet() || kind.Type != socket.Stream {
		return false
	}
	peer, err := socket.Peer(p.fds[s])
	return err == nil && peer.IsValid()
}

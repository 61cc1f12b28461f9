package feature

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"torpor/kernel/memory"
	"torpor/kernel/ptrace"
)

// pauseProgram is a static ELF executable that calls pause(2) for ever: probes
// need a child and no machine has one that is sure to be there.
func pauseProgram() []byte {
	code := []byte{
		0xb8, unix.SYS_PAUSE, 0, 0, 0, // mov eax, SYS_PAUSE
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp to the start
	}
	const base, headers = 0x400000, 64 + 56
	le := binary.LittleEndian
	b := make([]byte, headers, headers+len(code))
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)            // ET_EXEC
	le.PutUint16(b[18:], 62)           // EM_X86_64
	le.PutUint32(b[20:], 1)            // EV_CURRENT
	le.PutUint64(b[24:], base+headers) // entry
	le.PutUint64(b[32:], 64)           // program headers
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	p := b[64:]
	le.PutUint32(p, 1)     // PT_LOAD
	le.PutUint32(p[4:], 5) // r-x
	le.PutUint64(p[16:], base)
	le.PutUint64(p[24:], base)
	le.PutUint64(p[32:], uint64(headers+len(code)))
	le.PutUint64(p[40:], uint64(headers+len(code)))
	le.PutUint64(p[48:], 4096)
	return append(b, code...)
}

// child is a process that does nothing until it is ended.
type child struct{ cmd *exec.Cmd }

// startPause runs the pause program at path.
func startPause(path string) (*child, error) {
	cmd := exec.Command(path)
	cmd.Dir = "/"
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start program: %w", err)
	}
	return &child{cmd: cmd}, nil
}

// newChild runs it from memory, so that no file system can forbid it.
func newChild() (*child, error) {
	file, err := memory.NewFile("torpor-check", 0)
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	defer file.Close()
	if _, err := file.Write(pauseProgram()); err != nil {
		return nil, fmt.Errorf("write memory file: %w", err)
	}
	return startPause(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// end kills the child, traced or not, and reaps it.
func (c *child) end() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait() // killed by us
}

// withStopped runs f with the pid of a traced, stopped child.
func withStopped(options int, f func(pid int) error) error {
	c, err := newChild()
	if err != nil {
		return err
	}
	defer c.end()
	if err := ptrace.Seize(c.pid(), options); err != nil {
		return fmt.Errorf("seize child: %w", err)
	}
	if err := ptrace.Interrupt(c.pid()); err != nil {
		return fmt.Errorf("interrupt child: %w", err)
	}
	stop, err := ptrace.Wait(c.pid())
	if err != nil {
		return fmt.Errorf("wait for child: %w", err)
	}
	if stop.Gone() {
		return fmt.Errorf("stop child: %w", os.ErrProcessDone)
	}
	defer ptrace.Detach(c.pid()) // it is killed next
	return f(c.pid())
}

package feature

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"torpor/kernel/memory"
	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
)

// subject is a process to try things on: it only waits, is traced with the
// options that dumps use, and is stopped. When pid namespaces can be made it
// is pid 1 of one, so that nothing it makes outlives it.
type subject struct {
	cmd    *exec.Cmd
	pid    int
	mem    *proc.Memory
	alone  bool  // in a pid and UTS namespace of its own
	seized error // why it is not traced with suspended seccomp filters
}

// The subject's only page.
const (
	subjectAddr = 0x10000
	codeAddr    = subjectAddr + 0x80
	callAddr    = codeAddr + 5        // of its system call instruction
	dataAddr    = subjectAddr + 0x800 // free for arguments
)

// subjectCode calls pause(2) for ever.
var subjectCode = []byte{
	0xb8, 34, 0, 0, 0, // mov $34, %eax
	0x0f, 0x05, // syscall
	0xeb, 0xf7, // jmp to the start
}

// startSubject is called on the tracer's thread.
func startSubject() (*subject, error) {
	if err := checkArchitecture(); err != nil {
		return nil, err
	}
	file, err := memory.NewFile("torpor-subject", proc.PageBytes)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if _, err := file.WriteAt(subjectELF(), 0); err != nil {
		return nil, fmt.Errorf("write subject: %w", err)
	}
	s := &subject{alone: true}
	if s.cmd, err = startFile(file, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWUTS}); err != nil {
		s.alone = false
		if s.cmd, err = startFile(file, nil); err != nil {
			return nil, err
		}
	}
	s.pid = s.cmd.Process.Pid
	s.mem = proc.OpenMemory(s.pid)
	if err := s.stopIt(); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// stopIt seizes the subject, if need be without suspending filters.
func (s *subject) stopIt() error {
	s.seized = ptrace.Seize(s.pid, ptrace.OptSuspendSeccomp|ptrace.OptExitKill)
	if s.seized != nil {
		if err := ptrace.Seize(s.pid, ptrace.OptExitKill); err != nil {
			return err
		}
	}
	if err := ptrace.Interrupt(s.pid); err != nil {
		return err
	}
	stop, err := ptrace.Wait(s.pid)
	if err != nil {
		return err
	}
	if stop.Gone() {
		return fmt.Errorf("stop subject: %s", stop)
	}
	return nil
}

func startFile(file *os.File, attr *syscall.SysProcAttr) (*exec.Cmd, error) {
	cmd := exec.Command(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd()))
	cmd.Args, cmd.Env, cmd.Dir = []string{"torpor-subject"}, []string{}, "/"
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start program from memory: %w", err)
	}
	return cmd, nil
}

// call executes a system call in the subject.
func (s *subject) call(nr uint64, args ...uint64) (uint64, error) {
	return ptrace.Inject(s.pid, callAddr, nr, args...)
}

// stop kills the subject and waits for it.
func (s *subject) stop() error {
	err := s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it was killed
	return errors.Join(err, s.mem.Close())
}

// subjectELF makes a static ELF64 file of one read-execute page (System V ABI,
// AMD64 supplement).
func subjectELF() []byte {
	b := make([]byte, proc.PageBytes)
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)  // ET_EXEC
	le.PutUint16(b[18:], 62) // EM_X86_64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], codeAddr)
	le.PutUint64(b[32:], 64) // program headers
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	load := b[64:]
	le.PutUint32(load[0:], 1) // PT_LOAD
	le.PutUint32(load[4:], 5) // read, execute
	le.PutUint64(load[16:], subjectAddr)
	le.PutUint64(load[24:], subjectAddr)
	le.PutUint64(load[32:], proc.PageBytes)
	le.PutUint64(load[40:], proc.PageBytes)
	le.PutUint64(load[48:], proc.PageBytes)
	copy(b[codeAddr-subjectAddr:], subjectCode)
	return b
}

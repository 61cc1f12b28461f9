package ptrace

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options of Seize, linux/ptrace.h.
const (
	OptExitKill       = unix.PTRACE_O_EXITKILL
	OptSuspendSeccomp = unix.PTRACE_O_SUSPEND_SECCOMP
)

const (
	requestGetRseq     = 0x420f // PTRACE_GET_RSEQ_CONFIGURATION, Linux 5.13
	requestGetDispatch = 0x4211 // PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, Linux 6.4
	noteXState         = 0x202  // NT_X86_XSTATE
)

func request(name string, req, tid int, addr, data uintptr) (uintptr, error) {
	r, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(req), uintptr(tid), addr, data, 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("%s task %d: %w", name, tid, errno)
	}
	return r, nil
}

// Seize attaches to a task without stopping it. Errors: ESRCH when it is gone,
// EPERM for a zombie, a traced task or a lack of privilege.
func Seize(tid, options int) error {
	_, err := request("seize", unix.PTRACE_SEIZE, tid, 0, uintptr(options))
	return err
}

// SetOptions replaces the options of a stopped tracee.
func SetOptions(tid, options int) error {
	_, err := request("set options of", unix.PTRACE_SETOPTIONS, tid, 0, uintptr(options))
	return err
}

// Interrupt asks a running tracee to stop; Wait reports the stop.
func Interrupt(tid int) error {
	_, err := request("interrupt", unix.PTRACE_INTERRUPT, tid, 0, 0)
	return err
}

// Continue lets a stopped tracee run, delivering signal unless it is 0.
func Continue(tid, signal int) error {
	_, err := request("continue", unix.PTRACE_CONT, tid, 0, uintptr(signal))
	return err
}

// Step lets a stopped tracee execute one instruction.
func Step(tid int) error {
	_, err := request("step", unix.PTRACE_SINGLESTEP, tid, 0, 0)
	return err
}

// ToCall lets a stopped tracee run to the entry or the exit of its next system
// call.
func ToCall(tid int) error {
	_, err := request("trace call of", unix.PTRACE_SYSCALL, tid, 0, 0)
	return err
}

// Detach lets a stopped tracee go.
func Detach(tid int) error {
	_, err := request("detach", unix.PTRACE_DETACH, tid, 0, 0)
	return err
}

// Regs are the general registers of a task, struct user_regs_struct.
type Regs = unix.PtraceRegs

// GetRegs reads the registers of a stopped tracee.
func GetRegs(tid int) (*Regs, error) {
	r := new(Regs)
	_, err := request("get registers of", unix.PTRACE_GETREGS, tid, 0, uintptr(unsafe.Pointer(r)))
	runtime.KeepAlive(r)
	return r, err
}

// SetRegs writes the registers of a stopped tracee.
func SetRegs(tid int, r *Regs) error {
	_, err := request("set registers of", unix.PTRACE_SETREGS, tid, 0, uintptr(unsafe.Pointer(r)))
	runtime.KeepAlive(r)
	return err
}

// GetXState reads the extended state (x87, SSE, AVX, ...) of a stopped tracee
// in the layout of XSAVE; its length depends on the CPU.
func GetXState(tid int) ([]byte, error) {
	b := make([]byte, 16384)
	iov := &unix.Iovec{Base: &b[0], Len: uint64(len(b))}
	_, err := request("get extended state of", unix.PTRACE_GETREGSET, tid, noteXState, uintptr(unsafe.Pointer(iov)))
	runtime.KeepAlive(iov)
	if err != nil {
		return nil, err
	}
	return b[:iov.Len:iov.Len], nil
}

// SetXState writes what GetXState returned, on the same CPU model.
func SetXState(tid int, b []byte) error {
	iov := &unix.Iovec{Base: &b[0], Len: uint64(len(b))}
	_, err := request("set extended state of", unix.PTRACE_SETREGSET, tid, noteXState, uintptr(unsafe.Pointer(iov)))
	runtime.KeepAlive(iov)
	return err
}

// GetSigMask reads the blocked signals of a stopped tracee; bit n-1 is signal n.
func GetSigMask(tid int) (uint64, error) {
	m := new(uint64)
	_, err := request("get signal mask of", unix.PTRACE_GETSIGMASK, tid, 8, uintptr(unsafe.Pointer(m)))
	runtime.KeepAlive(m)
	return *m, err
}

// SetSigMask writes the blocked signals of a stopped tracee.
func SetSigMask(tid int, mask uint64) error {
	m := &mask
	_, err := request("set signal mask of", unix.PTRACE_SETSIGMASK, tid, 8, uintptr(unsafe.Pointer(m)))
	runtime.KeepAlive(m)
	return err
}

// Rseq is a task's registration of restartable sequences, struct
// ptrace_rseq_configuration. Addr is 0 when there is none.
type Rseq struct {
	Addr      uint64
	LenBytes  uint32
	Signature uint32
	Flags     uint32
	_         uint32
}

// GetRseq reads the registration. Least kernel: 5.13.
func GetRseq(tid int) (Rseq, error) {
	r := new(Rseq)
	_, err := request("get rseq of", requestGetRseq, tid, unsafe.Sizeof(*r), uintptr(unsafe.Pointer(r)))
	return *r, err
}

// DispatchesCalls reports whether a stopped tracee gets its own system calls as
// signals (syscall user dispatch). Least kernel: 6.4; before it says no.
func DispatchesCalls(tid int) (bool, error) {
	var config [4]uint64 // struct ptrace_sud_config: mode, selector, offset, length
	_, err := request("get call dispatch of", requestGetDispatch, tid, unsafe.Sizeof(config), uintptr(unsafe.Pointer(&config)))
	if errors.Is(err, unix.EIO) { // no such request
		return false, nil
	}
	return config[0] != 0, err
}

// SeccompFilter returns the filter that was installed as the n-th last, as
// struct sock_filter array, and ENOENT behind the first one.
func SeccompFilter(tid, n int) ([]byte, error) {
	count, err := request("get seccomp filter of", unix.PTRACE_SECCOMP_GET_FILTER, tid, uintptr(n), 0)
	if err != nil {
		return nil, err
	}
	b := make([]byte, count*8)
	if count == 0 {
		return b, nil
	}
	_, err = request("get seccomp filter of", unix.PTRACE_SECCOMP_GET_FILTER, tid, uintptr(n), uintptr(unsafe.Pointer(&b[0])))
	runtime.KeepAlive(b)
	return b, err
}

// peekArgs is struct ptrace_peeksiginfo_args.
type peekArgs struct {
	offset uint64
	flags  uint32
	count  int32
}

// SigInfo is a raw siginfo_t.
type SigInfo [128]byte

// PendingSignals returns the queued signals of a stopped tracee, or of its
// whole process when shared is set. The kernel stops after any one of them when
// the tracer's own thread has a signal, as each does now and then by Go's
// preemption (SIGURG): only an empty answer is the end.
func PendingSignals(tid int, shared bool) ([]SigInfo, error) {
	const batch = 32
	var all []SigInfo
	for {
		args := &peekArgs{offset: uint64(len(all)), count: batch}
		if shared {
			args.flags = 1 // PTRACE_PEEKSIGINFO_SHARED
		}
		infos := make([]SigInfo, batch)
		n, err := request("peek signals of", unix.PTRACE_PEEKSIGINFO, tid, uintptr(unsafe.Pointer(args)), uintptr(unsafe.Pointer(&infos[0])))
		runtime.KeepAlive(args)
		runtime.KeepAlive(infos)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return all, nil
		}
		all = append(all, infos[:n]...)
	}
}

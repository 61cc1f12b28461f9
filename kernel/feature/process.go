package feature

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"torpor/kernel/pidfd"
	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
	"torpor/kernel/thread"
	"torpor/kernel/timens"
)

// newKernel is what to do when a kernel is too old.
const newKernel = "boot a newer kernel, 6.8 or later (Debian 12: linux-image-amd64 from bookworm-backports)"

// configured is what to do when a kernel was built without an option.
func configured(options string) string {
	return "boot a kernel with " + options + ", as those of Debian and Ubuntu are"
}

// outside is what to do when something around this process forbids it.
const outside = "run torpor as root on the host or in a virtual machine, not in a container that restricts it"

var processProbes = []probe{
	{Feature{"amd64", true, "restoring registers and calling the kernel from restored processes",
		"nothing works: only amd64 is supported", "use a machine with an x86-64 processor"}, tryArchitecture},
	{Feature{"root", true, "making containers, tracing their processes, restoring their owners",
		"no service can be started, put to sleep or woken", asRoot}, tryRoot},
	{Feature{"ptrace", true, "stopping processes with their seccomp filters suspended (PTRACE_SEIZE, PTRACE_O_SUSPEND_SECCOMP)",
		"no process can be dumped or restored", configured("CONFIG_CHECKPOINT_RESTORE and CONFIG_SECCOMP") + "; set the sysctl kernel.yama.ptrace_scope below 3; " + outside}, tryPtrace},
	{Feature{"set-tid", true, "giving restored processes and threads their old ids (clone3 with set_tid)",
		"no process can be restored", newKernel}, trySetTID},
	{Feature{"pidfd", true, "parking descriptors of sleeping services (pidfd_open, pidfd_getfd)",
		"connections of a sleeping service can not be kept open", newKernel}, tryPidfd},
	{Feature{"setns", true, "restoring a process into the namespaces of its container (setns by pidfd)",
		"no service can be woken", newKernel}, trySetns},
	{Feature{"pid-namespaces", true, "keeping the ids of a sleeping service free",
		"ids of a sleeping service may be taken by other processes", configured("CONFIG_PID_NS") + "; " + outside}, tryPIDNamespace},
	{Feature{"seccomp-filter", true, "carrying seccomp filters over sleep (PTRACE_SECCOMP_GET_FILTER)",
		"services with a seccomp filter, which is the default, can not sleep", configured("CONFIG_CHECKPOINT_RESTORE and CONFIG_SECCOMP_FILTER")}, trySeccompFilter},
	{Feature{"rseq", true, "carrying restartable sequences over sleep (PTRACE_GET_RSEQ_CONFIGURATION)",
		"programs with a C library of 2022 or later can not sleep", newKernel}, tryRseq},
	{Feature{"children", true, "finding all processes of a service (/proc/PID/task/TID/children)",
		"no process tree can be dumped", configured("CONFIG_PROC_CHILDREN")}, tryChildren},
	{Feature{"current-call", true, "seeing that a process waits to be restored (/proc/PID/syscall)",
		"no process can be restored", outside}, tryCurrentCall},
	{Feature{"timers", false, "carrying POSIX timers over sleep (PR_TIMER_CREATE_RESTORE_IDS)",
		"programs that use timer_create can not sleep", "boot Linux 6.15 or later if there are such programs"}, tryTimers},
	{Feature{"kcmp", false, "telling what two processes share (kcmp)",
		"processes that share memory or descriptors without being threads are not noticed and would be torn apart; no ready checkpoints", configured("CONFIG_KCMP")}, tryKcmp},
	{Feature{"time-namespaces", false, "restoring ready checkpoints after a reboot with clocks that do not go back (CONFIG_TIME_NS)",
		"services start cold after a reboot until the machine has been up for as long as it was when their checkpoint was made", configured("CONFIG_TIME_NS")}, tryTimeNamespace},
}

func tryTimeNamespace(*machine) (string, error) {
	ns, err := timens.New(timens.Clocks{Monotonic: time.Hour})
	if err != nil {
		return "", err
	}
	return "", ns.Close()
}

func tryArchitecture(*machine) (string, error) { return "", checkArchitecture() }

func checkArchitecture() error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("this is %s", runtime.GOARCH)
	}
	if size := os.Getpagesize(); size != proc.PageBytes {
		return fmt.Errorf("a page has %d bytes", size)
	}
	return nil
}

// tryRoot looks for capabilities too: root of a container lacks them.
func tryRoot(*machine) (string, error) {
	if uid := os.Geteuid(); uid != 0 {
		return "", fmt.Errorf("user id is %d", uid)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return "", fmt.Errorf("read capabilities: %w", err)
	}
	for name, bit := range map[string]int{"SYS_ADMIN": unix.CAP_SYS_ADMIN, "SYS_PTRACE": unix.CAP_SYS_PTRACE, "NET_ADMIN": unix.CAP_NET_ADMIN} {
		if data[bit/32].Effective&(1<<(bit%32)) == 0 {
			return "", fmt.Errorf("capability %s is missing", name)
		}
	}
	return "", nil
}

func tryPtrace(m *machine) (string, error) {
	return "", m.onSubject(func(s *subject) error { return s.seized })
}

// cloneArgs is struct clone_args of linux/sched.h, version 2.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackBytes, tls, setTID, setTIDLen uint64
}

func (a cloneArgs) bytes() []byte {
	var b []byte
	for _, v := range []uint64{a.flags, a.pidfd, a.childTID, a.parentTID, a.exitSignal, a.stack, a.stackBytes, a.tls, a.setTID, a.setTIDLen} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// trySetTID makes a child of a given id. In the subject's own pid namespace it
// is free and the child dies with the subject; outside it is not tried.
func trySetTID(m *machine) (string, error) {
	const wanted = 77
	return "", m.onSubject(func(s *subject) error {
		if !s.alone && os.Geteuid() != 0 {
			return errNeedsRoot
		}
		if !s.alone {
			return errors.New("try set_tid: there is no pid namespace to try it in")
		}
		args := cloneArgs{exitSignal: uint64(unix.SIGCHLD), setTID: dataAddr + 0x100, setTIDLen: 1}.bytes()
		tid := binary.LittleEndian.AppendUint32(nil, wanted)
		if err := errors.Join(s.mem.WriteAt(args, dataAddr), s.mem.WriteAt(tid, dataAddr+0x100)); err != nil {
			return err
		}
		got, err := s.call(unix.SYS_CLONE3, dataAddr, uint64(len(args)))
		if err == nil && got != wanted {
			err = fmt.Errorf("clone3 made process %d, not %d", got, wanted)
		}
		return err
	})
}

func tryPidfd(m *machine) (string, error) {
	return "", m.onSubject(func(s *subject) error {
		p, err := pidfd.Open(s.pid)
		if err != nil {
			return err
		}
		defer p.Close()
		fd, err := pidfd.GetFD(p, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	})
}

func trySetns(m *machine) (string, error) {
	if m.subject == nil {
		return "", m.subjectErr
	}
	p, err := pidfd.Open(m.subject.pid)
	if err != nil {
		return "", err
	}
	defer p.Close()
	return "", thread.Do(func() error {
		return os.NewSyscallError("setns", unix.Setns(int(p.Fd()), unix.CLONE_NEWUTS))
	})
}

func tryPIDNamespace(m *machine) (string, error) {
	return "", m.onSubject(func(s *subject) error {
		if s.alone {
			return nil
		}
		return os.NewSyscallError("clone", thread.Do(func() error { return unix.Unshare(unix.CLONE_NEWPID) }))
	})
}

// trySeccompFilter installs a filter that allows everything and reads it back.
func trySeccompFilter(m *machine) (string, error) {
	const allow = "\x06\x00\x00\x00\x00\x00\xff\x7f" // struct sock_filter: return SECCOMP_RET_ALLOW
	return "", m.onSubject(func(s *subject) error {
		program := binary.LittleEndian.AppendUint64(nil, 1) // struct sock_fprog: length, address
		program = binary.LittleEndian.AppendUint64(program, dataAddr+0x10)
		if err := s.mem.WriteAt(append(program, allow...), dataAddr); err != nil {
			return err
		}
		if _, err := s.call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		if _, err := s.call(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, dataAddr); err != nil {
			return err
		}
		got, err := ptrace.SeccompFilter(s.pid, 0)
		if err == nil && string(got) != allow {
			err = fmt.Errorf("read seccomp filter: %x is not what was installed", got)
		}
		return err
	})
}

func tryRseq(m *machine) (string, error) {
	return "", m.onSubject(func(s *subject) error {
		_, err := ptrace.GetRseq(s.pid)
		return err
	})
}

func tryChildren(m *machine) (string, error) {
	return "", m.onSubject(func(s *subject) error {
		// The thread that started the subject is its parent only by chance.
		tasks, err := proc.Tasks(os.Getpid())
		if err != nil {
			return err
		}
		for _, tid := range tasks {
			b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", tid))
			if errors.Is(err, os.ErrNotExist) && proc.Exists(tid) {
				return err
			}
			if err == nil && slices.Contains(fields(b), fmt.Sprint(s.pid)) {
				return nil
			}
		}
		return fmt.Errorf("list children: process %d is not among them", s.pid)
	})
}

// tryCurrentCall looks for the call that the subject was stopped in. Calls made
// in it since may have left another one.
func tryCurrentCall(m *machine) (string, error) {
	return "", m.onSubject(func(s *subject) error {
		_, err := proc.CurrentCall(s.pid)
		return err
	})
}

// tryTimers asks whether ids of timers can be chosen.
func tryTimers(m *machine) (string, error) {
	const restoreIDs, get = 77, 2 // PR_TIMER_CREATE_RESTORE_IDS and ..._GET of linux/prctl.h
	return "", m.onSubject(func(s *subject) error {
		if _, err := os.ReadFile(fmt.Sprintf("/proc/%d/timers", s.pid)); err != nil {
			return err
		}
		_, err := s.call(unix.SYS_PRCTL, restoreIDs, get, 0, 0, 0)
		return err
	})
}

func tryKcmp(m *machine) (string, error) {
	return "", m.onSubject(func(s *subject) error {
		_, ok, err := proc.Share(os.Getpid(), s.pid, proc.ResourceMemory)
		if err == nil && !ok {
			err = os.NewSyscallError("kcmp", syscall.ENOSYS)
		}
		return err
	})
}

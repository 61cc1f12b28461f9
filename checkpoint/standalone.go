package checkpoint

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"torpor/checkpoint/blob"
	"torpor/host"
	"torpor/kernel/memory"
	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
)

// holderName is the command name of holders outside containers.
const holderName = "torpor-holder"

// socketName is the holder's socket in a checkpoint directory.
const socketName = "init.sock"

// StartHolder starts a process that holds descriptors for the checkpoint in
// dir, outside any container. It outlives this process; Stop ends it.
func StartHolder(dir string) (*Holder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make checkpoint directory: %w", err)
	}
	socket := filepath.Join(dir, socketName)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("make holder's socket: %w", err)
	}
	defer conn.Close()
	file, err := conn.File()
	if err != nil {
		return nil, fmt.Errorf("make holder's socket: %w", err)
	}
	defer file.Close()
	pid, err := runHolder(file)
	if err != nil {
		return nil, err
	}
	return &Holder{PID: pid, Socket: socket}, nil
}

func runHolder(socket *os.File) (int, error) {
	elf := blob.InitELF()
	executable, err := memory.NewFile(holderName, int64(len(elf)))
	if err != nil {
		return 0, err
	}
	defer executable.Close()
	if _, err := executable.WriteAt(elf, 0); err != nil {
		return 0, fmt.Errorf("write holder: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	cmd := exec.Command(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), executable.Fd()))
	cmd.Args, cmd.Env, cmd.Dir = []string{holderName}, []string{}, "/"
	cmd.ExtraFiles = []*os.File{null, socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start holder: %w", err)
	}
	pid := cmd.Process.Pid
	return pid, cmd.Process.Release()
}

// FindHolder returns the holder of a checkpoint that StartHolder made. When it
// is gone, as after a reboot, the checkpoint is of no use: host.ErrCorrupt.
func FindHolder(dir string, spec *Spec) (*Holder, error) {
	target, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", spec.HolderPID))
	if err != nil || !strings.HasPrefix(target, "/memfd:"+holderName) {
		return nil, fmt.Errorf("find holder %d of %s: it is gone, and the open files with it: %w", spec.HolderPID, dir, host.ErrCorrupt)
	}
	return &Holder{PID: spec.HolderPID, Socket: filepath.Join(dir, socketName)}, nil
}

// Stop ends a holder made by StartHolder and closes all it holds.
func (h *Holder) Stop() error {
	if err := syscall.Kill(h.PID, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		return fmt.Errorf("stop holder %d: %w", h.PID, err)
	}
	err := os.Remove(h.Socket)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// DumpProcess dumps a process and its descendants, outside any container, into
// dir. If it is refused or fails, the tree runs on and dir is as it was.
func DumpProcess(pid int, dir string, leaveRunning bool) (*DumpReport, error) {
	if _, err := ReadSpec(dir); !errors.Is(err, host.ErrNotFound) {
		return nil, fmt.Errorf("dump into %s: it holds a checkpoint already: %w", dir, host.ErrExists)
	}
	status, err := proc.ReadStatus(pid, pid)
	if err != nil {
		return nil, fmt.Errorf("dump process %d: %w: %w", pid, err, host.ErrNotFound)
	}
	if len(status.NSPIDs) > 1 {
		return nil, &host.Refusal{Reasons: []string{fmt.Sprintf("process %d (%s) is in another pid namespace", pid, status.Name)}}
	}
	list := func() ([]int, error) { return proc.Tree(pid) }
	pids, err := list()
	if err != nil {
		return nil, err
	}
	if err := Check(pids); err != nil {
		return nil, err
	}
	holder, err := StartHolder(dir)
	if err != nil {
		return nil, err
	}
	report, err := Dump(DumpOptions{Dir: dir, Holder: holder, List: list, OwnSession: true, LeaveRunning: leaveRunning})
	if err != nil {
		return nil, errors.Join(err, holder.Stop(), removeIfUnused(dir))
	}
	return report, nil
}

// removeIfUnused removes the pages image of a dump that failed, and the
// directory if nothing else is in it.
func removeIfUnused(dir string) error {
	if err := os.Remove(ImagePath(dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	_ = os.Remove(dir) // holds other things: they are not ours
	return nil
}

// RestoreProcess restores what DumpProcess dumped and returns the pid of its
// first process, which becomes a child of this one. The processes map the
// pages image of dir as long as they live; the checkpoint is used up.
func RestoreProcess(dir string) (int, error) {
	spec, err := ReadSpec(dir)
	if err != nil {
		return 0, err
	}
	holder, err := FindHolder(dir, spec)
	if err != nil {
		return 0, err
	}
	for i := range spec.Processes {
		if proc.Exists(spec.Processes[i].PID) {
			return 0, fmt.Errorf("restore %s: its pid %d is in use: %w", dir, spec.Processes[i].PID, host.ErrExists)
		}
	}
	if err := proc.BecomeSubreaper(); err != nil {
		return 0, err
	}
	stub, err := Arm(spec, ArmOptions{Holder: holder})
	if err != nil {
		return 0, err
	}
	tracer := ptrace.NewTracer()
	defer tracer.Close()
	report, err := stub.Restore(tracer, RestoreOptions{Commit: func() error { return Discard(dir) }})
	if err != nil {
		return 0, err
	}
	return report.PIDs[0], holder.Stop()
}

package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"torpor/checkpoint/blob"
	"torpor/host"
	"torpor/kernel/memory"
	"torpor/kernel/pidfd"
	"torpor/kernel/proc"
	"torpor/kernel/signal"
)

// Stub is a checkpoint ready to be restored: a process that waits in the
// tree's namespaces, with the compiled script mapped. It is plain data about a
// process that outlives this one; Restore uses it up, Kill ends it.
type Stub struct {
	PID     int // in this process's pid namespace
	Spec    *Spec
	program *program
	area    []byte // this process's mapping of the script
}

// StubName is the command name of waiting stubs.
const StubName = "torpor-stub"

// ArmOptions say where a stub has to wait.
type ArmOptions struct {
	Holder *Holder
	// Join is the process whose namespaces the tree lives in; 0 stays here.
	Join int
	// AddToCgroups is called with the stub's pid; nil leaves it where this
	// process is.
	AddToCgroups func(pid int) error
}

// spareBytes is room for the kernel's own mappings behind an area.
const spareBytes = 1 << 20

// Arm compiles the checkpoint and starts its stub. The pages image and the
// parked descriptors must be those of the commit: anything else is
// host.ErrCorrupt.
func Arm(spec *Spec, o ArmOptions) (*Stub, error) {
	if err := spec.usable(o.Holder); err != nil {
		return nil, err
	}
	draft, err := compile(spec, *o.Holder, areaRange{}, nil)
	if err != nil {
		return nil, err
	}
	areaBytes := (uint64(len(draft.bytes)) + proc.PageBytes - 1) &^ (proc.PageBytes - 1)
	area, err := findArea(spec, areaBytes, spareBytes)
	if err != nil {
		return nil, err
	}
	file, err := memory.NewFile("torpor-script", int64(areaBytes))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	mapped, err := syscall.Mmap(int(file.Fd()), 0, int(areaBytes), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map script: %w", err)
	}
	stub := &Stub{Spec: spec, area: mapped}
	if err := stub.start(file, area, o); err != nil {
		return nil, errors.Join(err, stub.Kill())
	}
	return stub, nil
}

// start runs the stub's executable and writes the final script.
func (s *Stub) start(file *os.File, area areaRange, o ArmOptions) error {
	draft, err := compile(s.Spec, *o.Holder, area, nil)
	if err != nil {
		return err
	}
	copy(s.area, draft.bytes) // the prelude; it does not depend on the stub
	if err := s.runStub(file, draft, area, o); err != nil {
		return err
	}
	if s.PID, err = newStub(adopter(o), file, area); err != nil {
		return err
	}
	if o.AddToCgroups != nil {
		if err := o.AddToCgroups(s.PID); err != nil {
			return err
		}
	}
	if err := proc.SetOOMScoreAdj(s.PID, s.Spec.Processes[0].OOMScoreAdj); err != nil {
		return fmt.Errorf("set OOM score of stub: %w", err)
	}
	specials, err := specialsOf(s.PID)
	if err != nil {
		return err
	}
	if s.program, err = compile(s.Spec, *o.Holder, area, specials); err != nil {
		return err
	}
	if len(s.program.bytes) != len(draft.bytes) {
		return fmt.Errorf("compile script: %d bytes, then %d", len(draft.bytes), len(s.program.bytes))
	}
	copy(s.area, s.program.bytes)
	return nil
}

// adopter is who becomes the stub's parent: the namespace's init, or, when the
// stub stays here, this process as a subreaper.
func adopter(o ArmOptions) int {
	if o.Join != 0 {
		return o.Join
	}
	return os.Getpid()
}

// stubPIDTries bounds the pids that are tried for a stub: those of a container
// are its tree's, free now, and of commands run in it, which are few.
const stubPIDTries = 16

// runStub starts the stub. In a pid namespace its own pid is one that the tree
// does not need: there the kernel would hand out the tree's sooner or later.
func (s *Stub) runStub(script *os.File, p *program, area areaRange, o ArmOptions) error {
	params := blob.StubParams{AreaAddr: uint64(area.base), AreaBytes: area.lenBytes, ScriptAddr: uint64(p.prelude), InterpAddr: uint64(p.interp)}
	if o.Join == 0 {
		return runStubELF(script, params, os.Getpid())
	}
	params.NSFlags = pidfd.NSMount | pidfd.NSUTS | pidfd.NSIPC | pidfd.NSPID | pidfd.NSNet | pidfd.NSCgroup
	var err error
	for _, pid := range s.Spec.foreignPIDs(stubPIDTries) {
		params.PID = uint64(pid)
		var ended *exec.ExitError
		if err = runStubELF(script, params, o.Join); !errors.As(err, &ended) || ended.ExitCode() != stubPIDTaken {
			return err
		}
	}
	return err
}

// stubPIDTaken is the exit code of a stub's second process that can not make
// the third; see blob_amd64.s.
const stubPIDTaken = 14

// foreignPIDs returns n pids that no task of the tree has. They are some way
// ahead of the tree's, and do not advance like those of the stub's second
// process, which gets the next one that is free.
func (s *Spec) foreignPIDs(n int) []int {
	const lowest, highest = 2, 30000 // of 32768, the least that pid_max is by default
	const ahead, pace = 100, 3
	taken, last := map[int]bool{}, lowest
	for i := range s.Processes {
		for j := range s.Processes[i].Threads {
			tid := s.Processes[i].Threads[j].TID
			taken[tid], last = true, max(last, tid)
		}
	}
	var free []int
	for i := 0; i < highest && len(free) < n; i++ {
		if pid := lowest + (last-lowest+ahead+pace*i)%(highest-lowest); !taken[pid] {
			free = append(free, pid)
		}
	}
	return free
}

// runStubELF starts the executable and waits for its first two processes; the
// third is the stub.
func runStubELF(script *os.File, params blob.StubParams, joinPID int) error {
	join, err := pidfd.Open(joinPID)
	if err != nil {
		return err
	}
	defer join.Close()
	elf := blob.StubELF(params)
	executable, err := memory.NewFile(StubName, int64(len(elf)))
	if err != nil {
		return err
	}
	defer executable.Close()
	if _, err := executable.WriteAt(elf, 0); err != nil {
		return fmt.Errorf("write stub: %w", err)
	}
	// A restored process has no more signals ignored than it was dumped with.
	signal.CatchIgnored()
	cmd := exec.Command(fmt.Sprintf("/proc/self/fd/%d", executable.Fd()))
	cmd.Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), executable.Fd())
	cmd.Args, cmd.Env, cmd.Dir = []string{StubName}, []string{}, "/"
	cmd.ExtraFiles = []*os.File{join, script}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("start stub: %w", err)
	}
	return nil
}

// newStub waits until the child of pid that maps this script waits for its
// tracer. Before that it has descriptors and signals that are not its own. A
// stub whose maker was killed may turn up meanwhile: it has another script.
func newStub(pid int, script *os.File, area areaRange) (int, error) {
	info, err := script.Stat()
	if err != nil {
		return 0, fmt.Errorf("find stub: %w", err)
	}
	inode := info.Sys().(*syscall.Stat_t).Ino
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Microsecond) {
		children, err := proc.Children(pid)
		if err != nil {
			return 0, fmt.Errorf("find stub: %w", err)
		}
		for _, child := range children {
			status, err := proc.ReadStatus(child, child)
			if err != nil || status.Name != StubName {
				continue
			}
			vmas, err := proc.Maps(child)
			if err != nil || !slices.ContainsFunc(vmas, func(v proc.VMA) bool { return v.Start == proc.Addr(area.base) && v.Inode == inode }) {
				continue
			}
			if call, err := proc.CurrentCall(child); err == nil && call == sysPause {
				return child, nil
			}
		}
	}
	return 0, fmt.Errorf("find stub: no new child of process %d", pid)
}

// Kill ends a stub that is not needed any more.
func (s *Stub) Kill() error {
	err := s.unmap()
	if s.PID == 0 {
		return err
	}
	process, openErr := pidfd.Open(s.PID)
	if errors.Is(openErr, syscall.ESRCH) {
		return err
	}
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	defer process.Close()
	s.PID = 0
	return errors.Join(err, pidfd.Kill(process))
}

func (s *Stub) unmap() error {
	if s.area == nil {
		return nil
	}
	area := s.area
	s.area = nil
	return syscall.Munmap(area)
}

// usable checks that what the checkpoint stands on is still there.
func (s *Spec) usable(h *Holder) error {
	boot, kernel, err := identity()
	if err != nil {
		return err
	}
	if boot != s.Boot {
		return fmt.Errorf("use checkpoint: it is of an earlier boot: %w", host.ErrCorrupt)
	}
	if kernel != s.Kernel {
		return fmt.Errorf("use checkpoint: it is of another kernel: %w", host.ErrCorrupt)
	}
	return s.hasImage(h)
}

// Check reports, as host.ErrCorrupt, a pages image that is not what it was
// when the stub was armed.
func (s *Stub) Check(h *Holder) error { return s.Spec.hasImage(h) }

// hasImage checks that the holder keeps the pages image of the commit.
func (s *Spec) hasImage(h *Holder) error {
	fd, err := h.Take(s.Pages)
	if err != nil {
		return fmt.Errorf("use checkpoint: %w: %w", err, host.ErrCorrupt)
	}
	image := os.NewFile(uintptr(fd), PagesName)
	defer image.Close()
	id, err := identify(image)
	if err != nil {
		return err
	}
	// Giving unused slots back after the commit changes the times.
	if id.Dev != s.Image.Dev || id.Inode != s.Image.Inode || id.LenBytes != s.Image.LenBytes {
		return fmt.Errorf("use checkpoint: its pages image is another file: %w", host.ErrCorrupt)
	}
	return nil
}

// BasePath is where the checkpoints of a container that was restored from a
// ready checkpoint find its pages image.
func BasePath(dir string) string { return filepath.Join(dir, baseName) }

// ImagePath is where the pages image of a checkpoint directory lies.
func ImagePath(dir string) string { return filepath.Join(dir, PagesName) }

package unique_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"torpor/checkpoint"
	"torpor/checkpoint/unique"
	"torpor/internal/initproc"
	"torpor/internal/kerneltest"
	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// service is a program below an init of its own. It reads lines from a FIFO,
// whose path is its last argument, and answers each with one line of words
// name=value: the next output of each of its generators.
type service struct {
	t       *testing.T
	process *initproc.Process
	holder  *checkpoint.Holder
	in      *os.File
	out     *bufio.Reader
	specs   []*unique.Spec // of its processes, once it sleeps
	meta    []byte
	took    time.Duration // the last Find
	when    string        // step of the restore at which it is renewed
}

// Steps of a restore: when threads have no registers yet, and when all is done
// but letting them go.
const (
	whenEarly = "script"
	whenUsual = "verify"
)

// startService starts a program and waits until it has said "ready".
func startService(t *testing.T, args ...string) *service {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.Ptrace, kerneltest.PIDNS, kerneltest.Program(args[0]))
	dir := t.TempDir()
	path := filepath.Join(dir, "in")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	s := &service{t: t, process: initproc.ForTest(t, append(args, path)...), in: in, when: whenUsual}
	s.holder = &checkpoint.Holder{PID: s.process.PID, Socket: filepath.Join(s.process.RunDir, "init.sock")}
	out, err := os.OpenFile(filepath.Join(s.process.RunDir, "stdout"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	errs, err := os.OpenFile(filepath.Join(s.process.RunDir, "stderr"), os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			b := make([]byte, 64<<10)
			errs.SetReadDeadline(time.Now())
			n, _ := errs.Read(b)
			t.Logf("the program's errors:\n%s", b[:max(n, 0)])
		}
		errs.Close()
	})
	s.out = bufio.NewReader(out)
	if err := out.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := s.line(); got != "ready" {
		t.Fatalf("the program says %q, want ready", got)
	}
	return s
}

func (s *service) line() string {
	s.t.Helper()
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.t.Fatalf("read answer: %v", err)
	}
	return strings.TrimSpace(line)
}

// outputs asks for the next outputs.
func (s *service) outputs() map[string]string {
	s.t.Helper()
	fmt.Fprintln(s.in, "go")
	all := map[string]string{}
	for _, word := range strings.Fields(s.line()) {
		name, value, _ := strings.Cut(word, "=")
		all[name] = value
	}
	return all
}

func (s *service) dir() string { return filepath.Join(s.process.RunDir, "checkpoint") }

// sleep makes a checkpoint and finds the random state while all is stopped.
func (s *service) sleep() {
	s.t.Helper()
	time.Sleep(200 * time.Millisecond) // let it become idle
	s.specs = nil
	list := checkpoint.ContainerTree(s.holder.PID)
	find := func() error {
		pids, err := list()
		for _, pid := range pids {
			if err == nil {
				err = s.find(pid)
			}
		}
		return err
	}
	_, err := checkpoint.Dump(checkpoint.DumpOptions{Dir: s.dir(), Holder: s.holder, List: list, At: func(step string) error {
		if step == "collect" {
			return find()
		}
		return nil
	}})
	if err != nil {
		s.t.Fatalf("dump: %v", err)
	}
	if s.meta, err = os.ReadFile(filepath.Join(s.dir(), "meta")); err != nil {
		s.t.Fatal(err)
	}
	for _, spec := range s.specs {
		s.t.Logf("%d places, %d calls, shared %q, found in %s", len(spec.Places), len(spec.Calls), spec.Shared, s.took)
	}
}

func (s *service) find(pid int) error {
	vmas, err := proc.VMAs(pid)
	if err != nil {
		return err
	}
	memory := proc.OpenMemory(pid)
	defer memory.Close()
	begun := time.Now()
	spec, err := unique.Find(pid, vmas, memory)
	s.took = time.Since(begun)
	s.specs = append(s.specs, spec)
	return err
}

// restore makes the processes of the checkpoint once more and renews them, if
// asked, before they run.
func (s *service) restore(renew bool) {
	s.t.Helper()
	if err := s.tryRestore(renew); err != nil {
		s.t.Fatalf("restore: %v", err)
	}
}

func (s *service) tryRestore(renew bool) error {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir(), "meta"), s.meta, 0o600); err != nil {
		s.t.Fatal(err)
	}
	spec, err := checkpoint.ReadSpec(s.dir())
	if err != nil {
		s.t.Fatal(err)
	}
	stub, err := checkpoint.Arm(spec, checkpoint.ArmOptions{Holder: s.holder, Join: s.holder.PID})
	if err != nil {
		s.t.Fatal(err)
	}
	tracer := ptrace.NewTracer()
	defer tracer.Close()
	_, err = stub.Restore(tracer, checkpoint.RestoreOptions{
		Commit: func() error { return checkpoint.Discard(s.dir()) },
		At: func(step string) error {
			if !renew || step != s.when {
				return nil
			}
			return s.renew(spec)
		}})
	return err
}

// renew runs on the tracer's thread, with all processes stopped. The threads
// have their registers, or, at the step "script", not yet.
func (s *service) renew(spec *checkpoint.Spec) error {
	pids, err := checkpoint.ContainerTree(s.holder.PID)()
	if err != nil {
		return err
	}
	outer := map[int]int{} // ids here, by those inside
	for _, pid := range pids {
		tids, err := proc.Tasks(pid)
		if err != nil {
			return err
		}
		for _, tid := range tids {
			status, err := proc.ReadStatus(pid, tid)
			if err != nil {
				return err
			}
			outer[status.NSPIDs[len(status.NSPIDs)-1]] = tid
		}
	}
	for i := range spec.Processes {
		process := &spec.Processes[i]
		p := &unique.Process{Memory: proc.OpenMemory(outer[process.PID]), Insn: process.Call}
		defer p.Memory.Close()
		for j := range process.Threads {
			t := &process.Threads[j]
			p.Threads = append(p.Threads, unique.Thread{TID: outer[t.TID], Regs: &t.Regs})
		}
		begun := time.Now()
		if err := s.specs[i].Renew(p); err != nil {
			return err
		}
		s.t.Logf("renewed in %s", time.Since(begun))
	}
	return nil
}

// end kills the restored processes, as if they had never been.
func (s *service) end() {
	s.t.Helper()
	pids, err := checkpoint.ContainerTree(s.holder.PID)()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			s.t.Fatal(err)
		}
	}
	for _, pid := range pids {
		for proc.Exists(pid) {
			time.Sleep(time.Millisecond)
		}
	}
}

// future is what the program prints first after a restore. It goes on for a
// while, collecting garbage, to show that nothing else was overwritten.
func (s *service) future(renew bool) map[string]string {
	s.t.Helper()
	s.restore(renew)
	defer s.end()
	first := s.outputs()
	for range 10 {
		s.outputs()
	}
	return first
}

// checkFutures restores the checkpoint four times. Without renewal both
// futures must be the same, or the test could not fail; but for those names
// that start with "fresh", which are the kernel's. With it all must differ from
// each other and from those, but for names that start with "shared"; and what
// starts with "wiped" must be 0. It is renewed once after the threads have their
// registers and once before.
func (s *service) checkFutures() {
	s.t.Helper()
	s.sleep()
	plain, again := s.future(false), s.future(false)
	first := s.future(true)
	s.when = whenEarly
	second := s.future(true)
	if len(plain) == 0 {
		s.t.Fatal("the program prints nothing")
	}
	for name, value := range plain {
		if strings.HasPrefix(name, "wiped") {
			s.checkWiped(name, value, first[name], second[name])
			continue
		}
		fresh, shared := strings.HasPrefix(name, "fresh"), strings.HasPrefix(name, "shared")
		if same := common(value, again[name]); same == fresh {
			s.t.Errorf("%s: not renewed it is %.60s and %.60s", name, value, again[name])
		}
		if same := common(value, first[name]) || common(value, second[name]) || common(first[name], second[name]); same != shared {
			s.t.Errorf("%s: renewed it is %.60s and %.60s, not renewed %.60s", name, first[name], second[name], value)
		}
	}
}

func (s *service) checkWiped(name, plain, first, second string) {
	s.t.Helper()
	if plain == "0" || first != "0" || second != "0" {
		s.t.Errorf("%s: not renewed it is %s, renewed %s and %s", name, plain, first, second)
	}
}

// common reports whether two values, or lists of values divided by commas, have
// one in common: which thread of a program answers is not always the same.
func common(a, b string) bool {
	values := strings.Split(a, ",")
	return slices.ContainsFunc(strings.Split(b, ","), func(v string) bool { return slices.Contains(values, v) })
}

// writeFile makes a file that ends with the test and returns its path.
func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

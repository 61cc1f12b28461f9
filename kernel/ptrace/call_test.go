package ptrace

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"torpor/internal/kerneltest"
)

// callee is a running testdata/callee.c that is stopped between its answers.
type callee struct {
	t      testing.TB
	cmd    *exec.Cmd
	in     io.Writer
	out    *bufio.Reader
	tracer *Tracer
	insn   uint64
	funcs  struct{ sum, local, forever, crash, finish uint64 }
}

func startCallee(t testing.TB) *callee {
	t.Helper()
	kerneltest.Require(t, kerneltest.Ptrace, kerneltest.Program("gcc"))
	path := filepath.Join(t.TempDir(), "callee")
	if out, err := exec.Command("gcc", "-O1", "-o", path, "testdata/callee.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	c := &callee{t: t, cmd: exec.Command(path), tracer: NewTracer()}
	t.Cleanup(c.tracer.Close)
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.in, c.out = in, bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.cmd.Process.Kill()
		c.cmd.Wait()
	})
	if _, err := fmt.Sscanf(c.line(), "%x %x %x %x %x", &c.funcs.sum, &c.funcs.local, &c.funcs.forever, &c.funcs.crash, &c.funcs.finish); err != nil {
		t.Fatal(err)
	}
	c.insn = findInsn(t, c.cmd.Process.Pid)
	return c
}

func (c *callee) line() string {
	c.t.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil {
		c.t.Fatalf("read answer: %v, %v", err, c.cmd.Wait())
	}
	return strings.TrimSpace(line)
}

// findInsn finds the `syscall` instruction of the vdso.
func findInsn(t testing.TB, pid int) uint64 {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	var start, end uint64
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(line, "[vdso]\n") {
			fmt.Sscanf(line, "%x-%x", &start, &end)
		}
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	code := make([]byte, end-start)
	if _, err := mem.ReadAt(code, int64(start)); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(code, []byte{0x0f, 0x05})
	if at < 0 {
		t.Fatal("no syscall instruction")
	}
	return start + uint64(at)
}

// stopped runs f while the program is stopped.
func (c *callee) stopped(f func(tid int, regs *Regs) error) error {
	return c.tracer.Do(func() error {
		tid := c.cmd.Process.Pid
		if err := Seize(tid, OptExitKill); err != nil {
			return err
		}
		if err := Interrupt(tid); err != nil {
			return err
		}
		if stop, err := Wait(tid); err != nil || stop.Event() != EventStop {
			return fmt.Errorf("%s, %w", stop, err)
		}
		regs, err := GetRegs(tid)
		if err != nil {
			return err
		}
		if err := f(tid, regs); err != nil {
			return err
		}
		return Detach(tid)
	})
}

func (c *callee) call(tid int, regs *Regs, f uint64, args ...uint64) (uint64, error) {
	return Call(tid, FunctionCall{Func: f, Args: args, Stack: (regs.Rsp - 4096) &^ 15, Insn: c.insn,
		FSBase: regs.Fs_base, GSBase: regs.Gs_base, Limit: time.Second})
}

// waitHandled waits until no signal is pending: a second one of the same number
// would be one with it.
func (c *callee) waitHandled() {
	c.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
		if err != nil {
			c.t.Fatal(err)
		}
		if strings.Contains(string(b), "SigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n") {
			return
		}
	}
	c.t.Fatal("a signal stays pending")
}

// TestCall calls functions in a program that waits in read, and checks their
// results and that the program notices nothing else: SIGTRAP is still ignored,
// a signal that came meanwhile is handled afterwards.
func TestCall(t *testing.T) {
	c := startCallee(t)
	for i := range uint64(3) {
		err := c.stopped(func(tid int, regs *Regs) error {
			if sum, err := c.call(tid, regs, c.funcs.sum, 1, 2, 3, 4, 5, 6); err != nil || sum != 654321 {
				return fmt.Errorf("sum is %d, %w", sum, err)
			}
			if err := syscall.Kill(tid, syscall.SIGUSR1); err != nil {
				return err
			}
			if got, err := c.call(tid, regs, c.funcs.local); err != nil || got != 42+i {
				return fmt.Errorf("local is %d, %w", got, err)
			}
			after, err := GetRegs(tid)
			if err == nil && *after != *regs {
				err = fmt.Errorf("registers are %+v, were %+v", *after, *regs)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		c.waitHandled()
	}
	fmt.Fprint(c.in, ".")
	if got := c.line(); got != "43 3" {
		t.Errorf("the program says %q", got)
	}
}

// TestCallThatFails calls functions that do not come back.
func TestCallThatFails(t *testing.T) {
	c := startCallee(t)
	err := c.stopped(func(tid int, regs *Regs) error {
		_, err := c.call(tid, regs, c.funcs.forever)
		if !errors.Is(err, ErrUnfinished) {
			return fmt.Errorf("forever: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	c = startCallee(t)
	err = c.stopped(func(tid int, regs *Regs) error {
		_, err := c.call(tid, regs, c.funcs.crash)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "SIGSEGV") {
		t.Errorf("crash: %v", err)
	}
}

// TestCallThatEndsTheProcess calls exit while all threads are traced: the kernel
// reports the first thread when the exits of the others were taken.
func TestCallThatEndsTheProcess(t *testing.T) {
	c := startCallee(t)
	err := c.stopped(func(pid int, regs *Regs) error {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil || len(entries) != 2 {
			return fmt.Errorf("threads %v, %w", entries, err)
		}
		var tid int
		fmt.Sscan(entries[1].Name(), &tid)
		if err := errors.Join(Seize(tid, OptExitKill), Interrupt(tid)); err != nil {
			return err
		}
		if _, err := Wait(tid); err != nil {
			return err
		}
		_, err = c.call(pid, regs, c.funcs.finish)
		return err
	})
	if !errors.Is(err, ErrUnfinished) {
		t.Errorf("%v, want %v", err, ErrUnfinished)
	}
}

func BenchmarkCall(b *testing.B) {
	c := startCallee(b)
	err := c.stopped(func(tid int, regs *Regs) error {
		for b.Loop() {
			if _, err := c.call(tid, regs, c.funcs.sum); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

package ptrace

import (
	"encoding/binary"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"torpor/internal/kerneltest"
)

// TestPendingSignalsDespitePreemption reads a long queue while the tracer's
// thread is sent the signal of Go's preemption without pause, which makes the
// kernel answer with less than it was asked for.
func TestPendingSignalsDespitePreemption(t *testing.T) {
	kerneltest.Require(t, kerneltest.Ptrace, kerneltest.Program("python3"))
	cmd := exec.Command("python3", "-c", `
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
print("blocked", flush=True)
sys.stdin.read()`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	var word string
	if _, err := fmt.Fscan(out, &word); err != nil {
		t.Fatal(err)
	}
	const queued, signal = 300, 34 // SIGRTMIN of glibc
	for i := range queued {
		queueSignal(t, cmd.Process.Pid, signal, int32(i))
	}
	tracer := NewTracer()
	t.Cleanup(tracer.Close)
	err = tracer.Do(func() error {
		if err := Seize(cmd.Process.Pid, 0); err != nil {
			return err
		}
		if err := Interrupt(cmd.Process.Pid); err != nil {
			return err
		}
		if _, err := Wait(cmd.Process.Pid); err != nil {
			return err
		}
		defer sendSIGURG(unix.Gettid())()
		for range 300 {
			infos, err := PendingSignals(cmd.Process.Pid, true)
			if err != nil {
				return err
			}
			if len(infos) != queued {
				return fmt.Errorf("%d signals, want %d", len(infos), queued)
			}
			for i := range infos {
				if v := binary.LittleEndian.Uint32(infos[i][24:]); v != uint32(i) {
					return fmt.Errorf("signal %d has value %d", i, v)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// sendSIGURG signals a thread of this process until the returned function is
// called.
func sendSIGURG(tid int) (stop func()) {
	end := make(chan struct{})
	var sender sync.WaitGroup
	sender.Add(1)
	go func() {
		defer sender.Done()
		for {
			select {
			case <-end:
				return
			default:
				_ = unix.Tgkill(unix.Getpid(), tid, unix.SIGURG)
				runtime.Gosched()
			}
		}
	}()
	return func() {
		close(end)
		sender.Wait()
	}
}

// queueSignal is sigqueue(3).
func queueSignal(t *testing.T, pid, signal int, value int32) {
	t.Helper()
	var info SigInfo
	put := func(at int, v int32) { binary.LittleEndian.PutUint32(info[at:], uint32(v)) }
	put(0, int32(signal))
	put(8, -1) // SI_QUEUE
	put(16, int32(unix.Getpid()))
	put(24, value)
	_, _, errno := unix.Syscall(unix.SYS_RT_SIGQUEUEINFO, uintptr(pid), uintptr(signal), uintptr(unsafe.Pointer(&info)))
	if errno == syscall.EAGAIN {
		t.Skip("the limit of pending signals is too low")
	}
	if errno != 0 {
		t.Fatal(errno)
	}
}

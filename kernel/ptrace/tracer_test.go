package ptrace

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
)

// TestTracerHasNoChildren starts processes on every thread there is and checks
// that a wait of a tracer for anything finds nothing.
func TestTracerHasNoChildren(t *testing.T) {
	var started sync.WaitGroup
	stop := make(chan struct{})
	var commands []*exec.Cmd
	var mu sync.Mutex
	for range 8 {
		started.Add(1)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			cmd := exec.Command("sleep", "60")
			if err := cmd.Start(); err != nil {
				t.Error(err)
			}
			mu.Lock()
			commands = append(commands, cmd)
			mu.Unlock()
			started.Done()
			<-stop
		}()
	}
	started.Wait()
	close(stop)
	for range 20 {
		tracer := NewTracer()
		err := tracer.Do(func() error {
			_, err := Poll(-1)
			return err
		})
		if !errors.Is(err, syscall.ECHILD) {
			t.Errorf("wait of a new tracer: %v, want ECHILD", err)
		}
		tracer.Close()
	}
	for _, cmd := range commands {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // killed
	}
}

// TestClosedTracerLetsGo checks that another tracer can have a task that the
// closed one left attached and running.
func TestClosedTracerLetsGo(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	for i := range 200 {
		tracer := NewTracer()
		err := tracer.Do(func() error { return Seize(cmd.Process.Pid, 0) })
		tracer.Close()
		if err != nil {
			t.Fatalf("seize %d: %v", i, err)
		}
	}
}

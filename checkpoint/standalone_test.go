package checkpoint

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"torpor/host"
	"torpor/kernel/proc"
)

// TestDumpAndRestoreAProcess dumps a program of this test's own session,
// outside any container, and restores it: its pipes are the same.
func TestDumpAndRestoreAProcess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := filepath.Join(t.TempDir(), "checkpoint")
	// A shell between this test and the program reaps it: a tracer that is also
	// the parent would find its stops taken by the wait for the exit.
	cmd := exec.Command("/bin/sh", "-c", `exec 3<&0; sh -c 'n=0; while read line; do n=$((n+1)); echo "$n $line"; done' <&3 3<&- & echo $!; wait`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	answers := bufio.NewReader(out)
	if _, err := fmt.Fscanln(answers, &pid); err != nil {
		t.Fatal(err)
	}
	say := func(want string) {
		t.Helper()
		fmt.Fprintln(in, "line")
		if got, err := answers.ReadString('\n'); err != nil || got != want+"\n" {
			t.Fatalf("program answered %q, %v, want %q", got, err, want)
		}
	}
	say("1 line")
	if _, err := DumpProcess(pid, dir, false); err != nil {
		t.Fatal(err)
	}
	if proc.Exists(pid) {
		t.Fatal("process is still there")
	}
	if _, err := DumpProcess(cmd.Process.Pid, dir, false); !errors.Is(err, host.ErrExists) {
		t.Errorf("second dump into the directory: %v, want %v", err, host.ErrExists)
	}
	got, err := RestoreProcess(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got != pid {
		t.Errorf("restored as %d, want %d", got, pid)
	}
	say("2 line")
	in.Close()
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		t.Errorf("restored process ended with %v, %v", status, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestRefusedProcessRunsOn shows that a refusal leaves no trace.
func TestRefusedProcessRunsOn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := filepath.Join(t.TempDir(), "checkpoint")
	cmd := exec.Command("/usr/bin/python3", "-c", `
import os, sys, time
fd = os.pidfd_open(os.getpid())
print("ready", flush=True)
sys.stdin.readline()
print("unharmed", flush=True)`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(out)
	if _, err := answers.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	_, err = DumpProcess(cmd.Process.Pid, dir, false)
	var refusal *host.Refusal
	if !errors.As(err, &refusal) || len(refusal.Reasons) != 1 {
		t.Errorf("dump: %v, want a refusal with one reason", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory is left behind: %v", err)
	}
	fmt.Fprintln(in)
	if got, _ := answers.ReadString('\n'); got != "unharmed\n" {
		t.Errorf("program answered %q", got)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

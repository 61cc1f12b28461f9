package object

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torpor/internal/kerneltest"
	"torpor/kernel/pidfd"
	"torpor/kernel/proc"
	"torpor/kernel/socket"
	"torpor/kernel/visit"
)

// TestPrograms describes all that real programs have open and map, and makes it
// in other namespaces.
func TestPrograms(t *testing.T) {
	for _, command := range [][]string{
		{"python3", "-m", "http.server", "--bind", "127.0.0.1", "8200"},
		{"redis-server", "--port", "8200", "--save", ""},
		{"node", "-e", "require('http').createServer((q, r) => r.end()).listen(8200, '127.0.0.1')"},
	} {
		t.Run(command[0], func(t *testing.T) {
			kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS, kerneltest.Ptrace, kerneltest.Program(command[0]))
			testProgram(t, command)
		})
	}
}

func testProgram(t *testing.T, command []string) {
	from := startProgram(t, command)
	awaitListener(t, from)
	tr := &transfer{t: t, from: from, dir: t.TempDir()}
	t.Cleanup(tr.close)
	check(t, syscall.Kill(from.PID, syscall.SIGSTOP))
	tr.addProcess(from.PID)
	tr.describe()
	tr.to = startProgram(t, []string{"sleep", "1000"})
	tr.make()
	for i := range tr.specs {
		if s := tr.specs[i].Socket; s != nil && s.State == SocketListening {
			check(t, visit.Do(tr.to.PID, visit.Network, func() error {
				fd, err := socket.New(socket.Kind{Domain: unix.AF_INET, Type: unix.SOCK_STREAM})
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				if err := socket.Connect(fd, unix.AF_INET, tr.specs[i].Socket.Local); err != nil && !errors.Is(err, unix.EINPROGRESS) {
					return err
				}
				if events, err := socket.Poll(tr.fds[i], socket.Readable, 5000); err != nil || events&socket.Readable == 0 {
					t.Errorf("nobody arrives at %s: %#x, %v", s.Local, events, err)
				}
				return nil
			}))
			return
		}
	}
	t.Error("no listening socket was made")
}

// startProgram starts a program on the host's files in a network of its own.
func startProgram(t *testing.T, command []string) *scratch {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC}
	check(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait() // it was killed
	})
	c := &scratch{t: t, Container: Container{PID: cmd.Process.Pid}}
	check(t, visit.Do(c.PID, visit.Network, loopbackUp))
	return c
}

func awaitListener(t *testing.T, c *scratch) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", c.PID))
		check(t, err)
		if strings.Contains(string(b), ":2008 00000000:0000 0A") {
			return
		}
	}
	t.Fatal("the program does not listen")
}

// addProcess adds all that a stopped process has open and maps.
func (tr *transfer) addProcess(pid int) {
	t := tr.t
	t.Helper()
	process, err := pidfd.Open(pid)
	check(t, err)
	defer process.Close()
	numbers, err := proc.Descriptors(pid)
	check(t, err)
	for _, n := range numbers {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, n))
		check(t, err)
		if mine, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", n)); n > 2 && err == nil && mine == target {
			continue // inherited from whoever runs the tests
		}
		fd, err := pidfd.GetFD(process, n)
		check(t, err)
		tr.open = append(tr.open, Open{FD: fd, PID: pid, Number: n, Use: UseDescriptor, Target: target})
	}
	vmas, err := proc.Maps(pid)
	check(t, err)
	for _, v := range vmas {
		if v.Inode != 0 {
			tr.addLink(fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, uint64(v.Start), uint64(v.End)), unix.O_RDONLY, UseMapped)
		}
	}
	tr.addLink(fmt.Sprintf("/proc/%d/exe", pid), unix.O_RDONLY, UseExecutable)
	tr.addLink(fmt.Sprintf("/proc/%d/cwd", pid), unix.O_PATH|unix.O_DIRECTORY, UseDirectory)
}

func (tr *transfer) addLink(link string, flags int, use Use) {
	tr.t.Helper()
	target, err := os.Readlink(link)
	check(tr.t, err)
	fd, err := unix.Open(link, flags|unix.O_CLOEXEC, 0)
	check(tr.t, err)
	tr.open = append(tr.open, Open{FD: fd, Use: use, Target: target})
}

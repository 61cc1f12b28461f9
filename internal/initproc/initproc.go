// Package initproc starts programs below a Torpor init in namespaces of their
// own, without an OCI runtime, for tests.
//
// A Process belongs to one test and ends with it.
package initproc

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"torpor/checkpoint/blob"
)

// Process is a program, its init, and the files of its run directory: FIFOs
// stdout, stderr and exit, and the socket init.sock.
type Process struct {
	PID    int // of the init
	RunDir string
	t      *testing.T
	cmd    *exec.Cmd
}

// Start runs args with new pid, mount, network, IPC and UTS namespaces; the
// loopback device of the network namespace is up.
func Start(t *testing.T, args ...string) *Process {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	p := &Process{t: t, RunDir: t.TempDir()}
	executable := filepath.Join(p.RunDir, "init")
	if err := os.WriteFile(executable, blob.InitELF(), 0o755); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, exit := p.fifo("stdout"), p.fifo("stderr"), p.fifo("exit")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(p.RunDir, "init.sock"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	socket, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(executable, args...)
	p.cmd.ExtraFiles = []*os.File{exit, socket}
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{stdout, stderr, exit, socket} {
		f.Close()
	}
	p.PID = p.cmd.Process.Pid
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	})
	p.InNetwork(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return p
}

func (p *Process) fifo(name string) *os.File {
	path := filepath.Join(p.RunDir, name)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		p.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	return f
}

// InNetwork runs f on a thread in the program's network namespace. What it
// opens there stays usable; f must not start goroutines.
func (p *Process) InNetwork(f func() error) {
	p.t.Helper()
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		ns, err := netns.GetFromPid(p.PID)
		if err == nil {
			err = netns.Set(ns)
			ns.Close()
		}
		if err == nil {
			err = f()
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		p.t.Fatal(err)
	}
}

// Dial connects to a TCP port of the program by its loopback, trying until it
// listens.
func (p *Process) Dial(port int) net.Conn {
	p.t.Helper()
	var conn net.Conn
	p.InNetwork(func() error {
		var err error
		for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if conn, err = dialHere(port); err == nil {
				return nil
			}
		}
		return err
	})
	return conn
}

// dialHere connects on the calling thread: net.Dial may use another one, which
// is in another namespace.
func dialHere(port int) (net.Conn, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("tcp:%d", port))
	defer f.Close()
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

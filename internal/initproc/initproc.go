// Package initproc starts programs below a Torpor init in namespaces of their
// own, without an OCI runtime: for tests and benchmarks.
//
// A Process is used by one goroutine at a time. The programs are trusted: they
// run as root with the host's file system.
package initproc

import (
	"errors"
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
	cmd    *exec.Cmd
}

// Start runs args with new pid, mount, network, IPC and UTS namespaces; the
// loopback device of the network namespace is up. Files are made in runDir.
// The caller must Stop it.
func Start(runDir string, args ...string) (*Process, error) {
	p := &Process{RunDir: runDir}
	executable := filepath.Join(runDir, "init")
	if err := os.WriteFile(executable, blob.InitELF(), 0o755); err != nil {
		return nil, err
	}
	files, err := p.files()
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	p.cmd = exec.Command(executable, args...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = files[0], files[1], files[2:]
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start init: %w", err)
	}
	p.PID = p.cmd.Process.Pid
	if err := p.InNetwork(loopbackUp); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// ForTest is Start in a directory of the test, stopped at its end.
func ForTest(t *testing.T, args ...string) *Process {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	p, err := Start(t.TempDir(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop() })
	return p
}

// Stop kills the init, and with it everything in its pid namespace.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = p.cmd.Wait() // it was killed
	return nil
}

// files opens stdout, stderr, exit and the socket.
func (p *Process) files() ([]*os.File, error) {
	var files []*os.File
	for _, name := range []string{"stdout", "stderr", "exit"} {
		path := filepath.Join(p.RunDir, name)
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			return files, fmt.Errorf("make FIFO %s: %w", path, err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return files, err
		}
		files = append(files, f)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(p.RunDir, "init.sock"), Net: "unixgram"})
	if err != nil {
		return files, err
	}
	defer conn.Close()
	socket, err := conn.File()
	return append(files, socket), err
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// InNetwork runs f on a thread in the program's network namespace. What it
// opens there stays usable; f must not start goroutines.
func (p *Process) InNetwork(f func() error) error {
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
	return <-failed
}

// Dial connects to a TCP port of the program by its loopback, trying for a
// minute until it listens.
func (p *Process) Dial(port int) (net.Conn, error) {
	var conn net.Conn
	err := p.InNetwork(func() error {
		var err error
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if conn, err = dialHere(port, syscall.SOCK_STREAM); err == nil {
				return nil
			}
		}
		return err
	})
	return conn, err
}

// DialUDP makes a socket that sends to a UDP port of the program.
func (p *Process) DialUDP(port int) (net.Conn, error) {
	var conn net.Conn
	err := p.InNetwork(func() error {
		var err error
		conn, err = dialHere(port, syscall.SOCK_DGRAM)
		return err
	})
	return conn, err
}

// dialHere connects on the calling thread: net.Dial may use another one, which
// is in another namespace.
func dialHere(port, kind int) (net.Conn, error) {
	fd, err := syscall.Socket(syscall.AF_INET, kind|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("port:%d", port))
	defer f.Close()
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

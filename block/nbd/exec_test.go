package nbd

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"torpor/block"
	"torpor/internal/kerneltest"
)

// execVariable names the directory of a server that replaces itself: the test
// binary is that server then.
const execVariable = "NBD_EXEC_SERVER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(execVariable); dir != "" {
		if err := execServer(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	kerneltest.Main(m)
}

// onFile is a device in a file, which outlives the process.
type onFile struct {
	*ram
	file *os.File
}

func (d onFile) ReadAt(p []byte, off block.Offset) error {
	_, err := d.file.ReadAt(p, int64(off))
	return err
}

func (d onFile) WriteAt(p []byte, off block.Offset, _ block.Flags) error {
	_, err := d.file.WriteAt(p, int64(off))
	return err
}

func (d onFile) Flush() error { return nil }

func (d onFile) Status(r block.Range) ([]block.Extent, error) {
	return []block.Extent{{Range: r, Kind: block.Data}}, nil
}

// execServer serves the file "image" at the socket "s". For each line on its
// standard input it executes itself anew, and says so.
func execServer(dir string) error {
	file, err := os.OpenFile(filepath.Join(dir, "image"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s, err := New(ServerSpec{})
	if err != nil {
		return err
	}
	d := onFile{ram: newRAM(64*mib, 4096), file: file}
	if err := s.Add(Export{Name: "disk", Device: d}); err != nil {
		return err
	}
	if err := resumeOrListen(s, dir); err != nil {
		return err
	}
	fmt.Println("serving")
	line := make([]byte, 1) // unbuffered: the next process reads on
	if _, err := os.Stdin.Read(line); err == io.EOF {
		return s.Close()
	}
	h, err := s.Suspend()
	if err != nil {
		return err
	}
	return execAgain(h, dir)
}

// resumeOrListen takes over what the process before left, if there was one.
func resumeOrListen(s *Server, dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "state"))
	if os.IsNotExist(err) {
		l, err := net.Listen("unix", filepath.Join(dir, "s"))
		if err == nil {
			go s.Serve(l) // until the process ends
		}
		return err
	}
	var state struct {
		Handover
		Descriptors []uintptr
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return err
	}
	var files []*os.File
	for _, fd := range state.Descriptors {
		files = append(files, os.NewFile(fd, "handed over"))
	}
	if err := state.SetFiles(files); err != nil {
		return err
	}
	return s.Resume(&state.Handover)
}

func execAgain(h *Handover, dir string) error {
	var descriptors []uintptr
	for _, f := range h.Files() {
		descriptors = append(descriptors, f.Fd())
		if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_SETFD, 0); errno != 0 {
			return errno
		}
	}
	text, err := json.Marshal(struct {
		*Handover
		Descriptors []uintptr
	}{h, descriptors})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "state"), text, 0o600); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
}

// TestExecUnderLoad replaces a server by itself many times while fio writes and
// verifies, and nbdcopy copies.
func TestExecUnderLoad(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("fio"), kerneltest.Program("nbdcopy"))
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, make([]byte, 64*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.Command("/proc/self/exe")
	server.Env = append(os.Environ(), execVariable+"="+dir)
	server.Stderr = os.Stderr
	orders, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // unless it has ended in order
		server.Process.Kill()
		server.Wait()
	})
	answers := bufio.NewScanner(out)
	serving := func() {
		if !answers.Scan() || answers.Text() != "serving" {
			t.Errorf("server says %q, %v", answers.Text(), answers.Err())
		}
	}
	serving()
	uri := uriOf(filepath.Join(dir, "s"), "disk")
	done := make(chan string, 2)
	client := func(name string, args ...string) {
		out, err := try(t, name, args...)
		if err != nil {
			out = fmt.Sprintf("%s: %v\n%s", name, err, out)
		} else {
			out = ""
		}
		done <- out
	}
	go client("fio", "--name=verify", "--ioengine=nbd", "--uri="+uri, "--rw=randwrite", "--bsrange=4k-256k", "--blockalign=4k",
		"--iodepth=16", "--size=32m", "--rate=20m", "--verify=crc32c", "--verify_fatal=1")
	go client("nbdcopy", "--synchronous", "--request-size=65536", uri, "null:")
	replaced, away := 0, time.Duration(0)
	for left := 2; left > 0; {
		select {
		case failed := <-done:
			left--
			if failed != "" {
				t.Error(strings.TrimSpace(failed))
			}
		case <-time.After(100 * time.Millisecond):
			order := time.Now()
			if _, err := orders.Write([]byte("\n")); err != nil {
				t.Fatal(err)
			}
			serving()
			replaced++
			away += time.Since(order)
		}
	}
	if replaced == 0 {
		t.Fatal("the clients were done before the server was replaced")
	}
	t.Logf("replaced %d times, away for %v each", replaced, away/time.Duration(replaced))
	orders.Close()
	if err := server.Wait(); err != nil {
		t.Error(err)
	}
}

package hostdev

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"torpor/block"
	"torpor/internal/kerneltest"
)

func TestMain(m *testing.M) {
	if order := os.Getenv(childVariable); order != "" {
		if err := child(order); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		return
	}
	kerneltest.Main(m)
}

// childVariable makes the test binary serve an export: it holds an order.
const childVariable = "HOSTDEV_CHILD"

// order is what a child shall serve: a file, as an export that is new, or that
// has a State and comes with descriptor 3.
type order struct {
	Path  string
	Spec  Spec
	State *State
	Stall bool // say "stalled" and wait for ever when something is written
}

// child serves until it is told "suspend" (it ends, with its state), "exec" (it
// becomes a new program in place) or "detach".
func child(text string) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	dev, err := openFileDevice(o.Path)
	if err != nil {
		return err
	}
	dev.stall = o.Stall
	e, err := o.start(dev)
	if err != nil {
		return err
	}
	fmt.Println("serving", e.Path())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch lines.Text() {
		case "detach":
			return e.Detach()
		case "suspend":
			state, _, err := e.Suspend()
			if err != nil {
				return err
			}
			return json.NewEncoder(os.Stdout).Encode(state)
		case "exec":
			return o.execute(e)
		}
	}
	return io.ErrUnexpectedEOF
}

func (o order) start(dev block.Device) (*Export, error) {
	if o.State == nil {
		return Attach(dev, o.Spec)
	}
	unix.CloseOnExec(3)
	return Resume(dev, *o.State, os.NewFile(3, "/dev/fuse"))
}

// execute is a new binary in place.
func (o order) execute(e *Export) error {
	state, file, err := e.Suspend()
	if err != nil {
		return err
	}
	o.State = &state
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if fd := int(file.Fd()); fd != 3 {
		err = unix.Dup3(fd, 3, 0)
	} else {
		_, err = unix.FcntlInt(3, unix.F_SETFD, 0)
	}
	if err != nil {
		return err
	}
	os.Setenv(childVariable, string(text))
	return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
}

// serving is a child, as its parent sees it.
type serving struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	device string
}

// serve starts a child and waits until it serves.
func serve(t *testing.T, o order, file *os.File) *serving {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	s := &serving{t: t, cmd: exec.Command(os.Args[0])}
	s.cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	s.cmd.Stderr = os.Stderr
	if file != nil {
		s.cmd.ExtraFiles = []*os.File{file}
	}
	s.in, err = s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // if the test failed
		s.cmd.Process.Kill()
		s.cmd.Wait()
	})
	s.started()
	return s
}

// started waits for a child that was started, or has executed another program.
func (s *serving) started() {
	s.t.Helper()
	s.device = strings.TrimSpace(s.hear("serving "))
}

// hear waits for a line that begins with some words, and returns the rest.
func (s *serving) hear(words string) string {
	s.t.Helper()
	line, _ := s.out.ReadString('\n')
	rest, ok := strings.CutPrefix(line, words)
	if !ok {
		s.t.Fatalf("child says %q, not %q", line, words)
	}
	return rest
}

func (s *serving) tell(what string) {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.in, what); err != nil {
		s.t.Fatal(err)
	}
}

// end waits for a child that was told to end, and returns what it said.
func (s *serving) end() string {
	s.t.Helper()
	said, _ := io.ReadAll(s.out)
	if err := s.cmd.Wait(); err != nil {
		s.t.Fatalf("child: %v: %s", err, said)
	}
	return string(said)
}

// kill ends a child at once.
func (s *serving) kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	s.cmd.Wait()
}

// fileDevice is a device in a file: what it acknowledged is still there when
// its process is killed.
type fileDevice struct {
	file  *os.File
	stall bool
}

func openFileDevice(path string) (fileDevice, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	return fileDevice{file: f}, err
}

func (d fileDevice) Info() block.Info {
	st, err := d.file.Stat()
	if err != nil {
		panic(err)
	}
	return block.Info{SizeBytes: st.Size(), BlockBytes: block.BlockBytes, PreferredBytes: block.BlockBytes, Volatile: true}
}

func (d fileDevice) ReadAt(p []byte, off block.Offset) error {
	_, err := d.file.ReadAt(p, int64(off))
	return err
}

func (d fileDevice) WriteAt(p []byte, off block.Offset, _ block.Flags) error {
	if d.stall {
		fmt.Println("stalled")
		select {}
	}
	_, err := d.file.WriteAt(p, int64(off))
	return err
}

func (d fileDevice) Zero(r block.Range, _ block.Flags) error {
	return unix.Fallocate(int(d.file.Fd()), zeroRange, int64(r.Start), r.LenBytes)
}

func (d fileDevice) Discard(block.Range, block.Flags) error { return nil }
func (d fileDevice) Flush() error                           { return nil }
func (d fileDevice) Close() error                           { return d.file.Close() }

func (d fileDevice) Status(r block.Range) ([]block.Extent, error) {
	return []block.Extent{{Range: r, Kind: block.Data}}, nil
}

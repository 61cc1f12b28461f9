package hostdev

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"torpor/host"
	"torpor/internal/kerneltest"
)

// The load of a handover: seconds of random writes, which are verified.
const (
	loadBytes = 64 << 20
	handovers = 5
	between   = 400 * time.Millisecond // handovers
)

// load runs fio on a device; the result is that of the verification.
func load(t *testing.T, device string) <-chan error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "fio", "--name=load", "--filename="+device, "--direct=1", "--ioengine=libaio", "--iodepth=16",
		"--rw=randwrite", "--bs=8k", "--fsync=64", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1",
		"--rate_iops=4000")
	cmd.Dir = t.TempDir() // it leaves a file there
	result := make(chan error, 1)
	go func() {
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Logf("fio: %s", out)
		}
		result <- err
	}()
	return result
}

// during calls handOver some times while the load runs, and wants both to
// succeed.
func during(t *testing.T, result <-chan error, handOver func()) {
	t.Helper()
	done := 0
	for ; done < handovers; done++ {
		select {
		case err := <-result:
			t.Fatalf("load ended after %d handovers: %v", done, err)
		case <-time.After(between):
			handOver()
		}
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

func requireLoad(t *testing.T) {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.Program("fio"))
	t.Parallel()
}

func newBackingFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, loadBytes); err != nil {
		t.Fatal(err)
	}
	return path
}

// newFileDevice is a device for the time of the test, and its file.
func newFileDevice(t *testing.T) (string, fileDevice) {
	t.Helper()
	path := newBackingFile(t)
	dev, err := openFileDevice(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return path, dev
}

// TestSuspendAndResume in one process.
func TestSuspendAndResume(t *testing.T) {
	requireLoad(t)
	dev := newDevice(t, loadBytes)
	e := attach(t, dev, Spec{})
	defer func() {
		if err := e.Detach(); err != nil {
			t.Error(err)
		}
	}()
	during(t, load(t, e.Path()), func() {
		state, file, err := e.Suspend()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := e.Suspend(); err == nil {
			t.Error("suspended twice")
		}
		if err := e.Detach(); err == nil {
			t.Error("detached what is suspended")
		}
		if e, err = Resume(dev, state, file); err != nil {
			t.Fatal(err)
		}
	})
}

// TestExecute: a server under load becomes a new program in place.
func TestExecute(t *testing.T) {
	requireLoad(t)
	dir := t.TempDir() + "/mount"
	t.Cleanup(func() { Clean(dir) }) // if the test failed
	s := serve(t, order{Path: newBackingFile(t), Spec: Spec{Name: "volume", MountDir: dir}}, nil)
	during(t, load(t, s.device), func() {
		s.tell("exec")
		s.started()
	})
	s.tell("detach")
	s.end()
}

// TestKill: servers under load are killed, and others go on, since this process
// has a descriptor.
func TestKill(t *testing.T) {
	requireLoad(t)
	path, dev := newFileDevice(t)
	e := attach(t, dev, Spec{})
	state, file, err := e.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	suspended, own, err := e.Suspend()
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, order{Path: path, State: &suspended}, own)
	own.Close()
	during(t, load(t, e.Path()), func() {
		s.kill()
		s = serve(t, order{Path: path, State: &state}, file)
	})
	s.tell("suspend")
	if err := json.Unmarshal([]byte(s.end()), &state); err != nil || !state.Suspended {
		t.Fatalf("got %+v, %v", state, err)
	}
	again, err := Resume(dev, state, file)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Detach(); err != nil {
		t.Fatal(err)
	}
}

// TestResumeRefuses a descriptor of another export, and states that do not fit.
func TestResumeRefuses(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	dev := newDevice(t, 1<<20)
	a, b := attach(t, dev, Spec{}), attach(t, dev, Spec{})
	stateA, fileA, errA := a.Suspend()
	stateB, fileB, errB := b.Suspend()
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	if _, err := Attach(dev, Spec{Name: "other", MountDir: stateA.MountDir}); !errors.Is(err, host.ErrExists) {
		t.Errorf("attached where a suspended export is: %v", err)
	}
	wrong := map[string]func(s *State){
		"version": func(s *State) { s.Version++ },
		"loop":    func(s *State) { s.Loop = "/dev/null" },
		"dir":     func(s *State) { s.MountDir += "x" },
	}
	for name, change := range wrong {
		state := stateA
		change(&state)
		if _, err := Resume(dev, state, fileA); err == nil {
			t.Errorf("resumed with a wrong %s", name)
		}
	}
	if _, err := Resume(dev, stateA, fileB); !errors.Is(err, host.ErrInvalid) {
		t.Errorf("resumed by the descriptor of another: %v", err)
	}
	for state, file := range map[State]*os.File{stateA: fileA, stateB: fileB} {
		e, err := Resume(dev, state, file)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Detach(); err != nil {
			t.Error(err)
		}
	}
}

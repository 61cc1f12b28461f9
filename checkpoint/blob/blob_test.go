package blob

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestCodeFitsAPage(t *testing.T) {
	for name, code := range map[string][]byte{
		"interpreter": Interpreter(), "stub": StubELF(StubParams{}), "init": InitELF(),
	} {
		if len(code) == 0 || len(code) > 4096 {
			t.Errorf("%s has %d bytes, want 1 to 4096", name, len(code))
		}
		t.Logf("%s: %d bytes", name, len(code))
	}
}

// TestInitRunsApplication starts the init outside a container, as an ordinary
// process with the exit pipe and a socket in descriptors 3 and 4.
func TestInitRunsApplication(t *testing.T) {
	path := filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(path, InitELF(), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		args []string
		want int
	}{
		{"looked up in PATH", []string{"sh", "-c", "exit 7"}, 7},
		{"absolute", []string{"/bin/sh", "-c", "exit 3"}, 3},
		{"missing from PATH", []string{"no-such-program"}, 127},
		{"missing file", []string{"/no/such/program"}, 127},
		{"not executable", []string{"/etc/passwd"}, 126},
	} {
		t.Run(test.name, func(t *testing.T) { checkExit(t, path, test.args, test.want) })
	}
}

func checkExit(t *testing.T, path string, args []string, want int) {
	reports, exitFIFO, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reports.Close()
	socket, unused, err := os.Pipe() // never readable: no messages in this test
	if err != nil {
		t.Fatal(err)
	}
	defer unused.Close()
	cmd := exec.Command(path, args...)
	cmd.ExtraFiles = []*os.File{exitFIFO, socket}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exitFIFO.Close()
	socket.Close()
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var report [8]byte
	if _, err := reports.Read(report[:]); err != nil {
		t.Fatal(err)
	}
	if got := int(report[5]); got != want {
		t.Errorf("exit code is %d, want %d (report %x)", got, want, report)
	}
}

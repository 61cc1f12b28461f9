package kerneltest

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// runVariable marks every process that a test starts, however far it wanders.
const runVariable = "TORPOR_TEST_RUN"

// settleTime is how long ends of processes, threads and connections that are
// already under way are waited for.
const settleTime = 3 * time.Second

// Main is the body of a package's TestMain. It runs the tests with a temporary
// directory of their own (short, for names of Unix sockets) and exits with 1 if
// they left something behind: processes, mounts or files below that directory,
// descriptors, or goroutines of Torpor. Descriptors that the garbage collector
// closes are not counted.
func Main(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tt")
	if err != nil {
		fmt.Fprintln(os.Stderr, "kerneltest: make temporary directory:", err)
		return 1
	}
	os.Setenv("TMPDIR", dir)
	os.Setenv(runVariable, strconv.Itoa(os.Getpid())+"-"+dir)
	before := openDescriptors()
	code := m.Run()
	watch := &leakWatch{dir: dir, mark: runVariable + "=" + os.Getenv(runVariable), before: before}
	leaks := watch.settle(settleTime)
	if code == 0 && len(leaks) > 0 {
		code = 1
	}
	for _, leak := range leaks {
		fmt.Fprintln(os.Stderr, "kerneltest: left behind:", leak)
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "kerneltest: remove temporary directory:", err)
		return 1
	}
	return code
}

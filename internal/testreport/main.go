// Command testreport runs `go test -json` with its arguments and prints what
// a person wants to know: a line for each package, the output of what failed,
// and how many tests passed, failed and were skipped.
//
//	go run ./internal/testreport [go test flags] [packages]
//
// It exits 1 when a test or a build failed, when no test ran, and, with CI or
// TORPOR_REQUIRE_KERNEL set, when a test was skipped: a kernel test that does
// not run proves nothing. It is one goroutine beside the go command.
package main

import (
	"fmt"
	"os"
	"os/exec"
)

func main() {
	strict := os.Getenv("CI") != "" || os.Getenv("TORPOR_REQUIRE_KERNEL") != ""
	ok, err := run(os.Args[1:], strict)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// run reports whether the tests count as passed.
func run(args []string, strict bool) (bool, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return false, fmt.Errorf("make pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("start go test: %w", err)
	}
	r := newReport(os.Stdout)
	readErr := r.read(events)
	waitErr := cmd.Wait()
	if readErr != nil {
		return false, fmt.Errorf("read output of go test: %w", readErr)
	}
	return r.finish(waitErr != nil, strict), nil
}

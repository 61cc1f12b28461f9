// Command report reads the output of `go test -json` from standard input and
// prints what a person needs: packages as they end, the output of failed tests,
// and closing lines with the numbers of passed, failed and skipped tests.
//
// It exits with 1 when a test failed, when nothing ran, and, with
// TORPOR_REQUIRE_KERNEL=1, when a test was skipped.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"torpor/internal/kerneltest"
)

func main() {
	ok, err := run(os.Stdin, os.Stdout, os.Getenv(kerneltest.RequireVariable) == "1")
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run reports whether all that ran is as it must be.
func run(in io.Reader, out io.Writer, noSkips bool) (bool, error) {
	s := newSummary(out)
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			s.take(line)
		}
		if err == io.EOF {
			return s.close(noSkips), nil
		}
		if err != nil {
			return false, fmt.Errorf("read test output: %w", err)
		}
	}
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is one line of go test -json; see go doc test2json.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// summary counts tests and keeps the output of those that are not over.
type summary struct {
	out                      io.Writer
	passed, failed, skipped  int
	packages, failedPackages int
	withoutTests             int
	output                   map[string][]string // by package and test
	skippedTests, failures   []string
}

func newSummary(out io.Writer) *summary {
	return &summary{out: out, output: map[string][]string{}}
}

// take handles one line. Lines that are no events come from the go command
// itself and are passed on.
func (s *summary) take(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil || e.Action == "" {
		fmt.Fprintf(s.out, "%s", line)
		return
	}
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		s.output[key] = append(s.output[key], e.Output)
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e)
		} else {
			s.endTest(e)
		}
		delete(s.output, key)
	}
}

// endTest counts a test. A test with subtests counts beside them.
func (s *summary) endTest(e event) {
	output := strings.Join(s.output[e.Package+" "+e.Test], "")
	switch e.Action {
	case "pass":
		s.passed++
	case "skip":
		s.skipped++
		s.skippedTests = append(s.skippedTests, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(output)))
	case "fail":
		s.failed++
		s.failures = append(s.failures, e.Package+" "+e.Test)
		fmt.Fprintf(s.out, "%s", output)
	}
}

func (s *summary) endPackage(e event) {
	output := s.output[e.Package+" "]
	if e.Action == "skip" || (e.Action == "pass" && slices.ContainsFunc(output, func(l string) bool { return strings.Contains(l, "[no test files]") })) {
		s.withoutTests++
		return
	}
	s.packages++
	if e.Action == "pass" {
		fmt.Fprintf(s.out, "ok    %-40s %6.1f s\n", e.Package, e.Elapsed)
		return
	}
	s.failedPackages++
	fmt.Fprint(s.out, strings.Join(output, ""))
	s.unfinished(e.Package)
	s.failures = append(s.failures, e.Package)
}

// unfinished prints what tests wrote that did not end: after a panic, or at the
// package's timeout.
func (s *summary) unfinished(pkg string) {
	for key, output := range s.output {
		if name, ok := strings.CutPrefix(key, pkg+" "); ok && name != "" {
			fmt.Fprint(s.out, strings.Join(output, ""))
			s.failures = append(s.failures, key+" (did not end)")
			delete(s.output, key)
		}
	}
}

// reason is the line of a skipped test's output that says why.
func reason(output string) string {
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			return line
		}
	}
	return "no reason"
}

// close prints the closing lines and reports whether all is well.
func (s *summary) close(noSkips bool) bool {
	for _, skipped := range s.skippedTests {
		fmt.Fprintf(s.out, "skipped: %s\n", skipped)
	}
	for _, failure := range s.failures {
		fmt.Fprintf(s.out, "failed:  %s\n", failure)
	}
	fmt.Fprintf(s.out, "packages: %d passed, %d failed, %d without tests\n", s.packages-s.failedPackages, s.failedPackages, s.withoutTests)
	fmt.Fprintf(s.out, "tests:    %d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
	ok := s.failedPackages == 0 && s.failed == 0 && s.passed > 0
	if noSkips && s.skipped > 0 {
		ok = false
		fmt.Fprintln(s.out, "skipped tests are failures here")
	}
	if ok {
		fmt.Fprintln(s.out, "PASS")
	} else {
		fmt.Fprintln(s.out, "FAIL")
	}
	return ok
}

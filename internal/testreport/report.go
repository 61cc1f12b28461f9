package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// report counts results and holds back the output of tests until it is known
// whether anybody wants to read it.
type report struct {
	out                     io.Writer
	passed, failed, skipped int
	output                  map[string][]string // by package and test
	skips                   []string            // "package Test: reason"
	failures                []string
}

func newReport(out io.Writer) *report {
	return &report{out: out, output: map[string][]string{}}
}

// read consumes events until the end of r. Lines that are no events are
// printed as they are.
func (r *report) read(events io.Reader) error {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil {
				r.handle(e)
			} else {
				fmt.Fprint(r.out, line)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) handle(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(e)
		}
		delete(r.output, key)
	}
}

func (r *report) endTest(e event) {
	output := r.output[e.Package+" "+e.Test]
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		r.failures = append(r.failures, e.Package+" "+e.Test)
		fmt.Fprint(r.out, strings.Join(output, ""))
	case "skip":
		r.skipped++
		r.skips = append(r.skips, e.Package+" "+e.Test+": "+reason(output))
	}
}

// endPackage prints the line of a package. A package that fails without a
// failing test did not build, or ended in the middle of one.
func (r *report) endPackage(e event) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(r.out, "ok    %s  %.1fs\n", e.Package, e.Elapsed)
	case "fail":
		for key, output := range r.output {
			if strings.HasPrefix(key, e.Package+" ") {
				fmt.Fprint(r.out, strings.Join(output, ""))
				delete(r.output, key)
			}
		}
		r.failures = append(r.failures, e.Package)
		fmt.Fprintf(r.out, "FAIL  %s  %.1fs\n", e.Package, e.Elapsed)
	}
}

// finish prints the closing lines and reports whether the run counts as
// passed. goFailed is whether the go command itself did.
func (r *report) finish(goFailed, strict bool) bool {
	for _, s := range r.skips {
		fmt.Fprintln(r.out, "skipped", s)
	}
	for _, f := range r.failures {
		fmt.Fprintln(r.out, "failed", f)
	}
	ok := !goFailed && r.failed == 0 && len(r.failures) == 0
	if ok && r.passed == 0 {
		fmt.Fprintln(r.out, "no test ran")
		ok = false
	}
	if strict && r.skipped > 0 {
		fmt.Fprintln(r.out, "a skipped test fails this run, because CI or TORPOR_REQUIRE_KERNEL is set")
		ok = false
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return ok
}

// reason is the last line that a skipped test printed itself.
func reason(output []string) string {
	last := "no reason given"
	for _, line := range output {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			last = line
		}
	}
	return last
}

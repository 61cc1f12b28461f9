package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReport(t *testing.T) {
	const stream = `{"Action":"start","Package":"torpor/a"}
{"Action":"run","Package":"torpor/a","Test":"TestGood"}
{"Action":"output","Package":"torpor/a","Test":"TestGood","Output":"quiet\n"}
{"Action":"pass","Package":"torpor/a","Test":"TestGood"}
{"Action":"output","Package":"torpor/a","Test":"TestBad","Output":"    a_test.go:1: got 1, want 2\n"}
{"Action":"fail","Package":"torpor/a","Test":"TestBad"}
{"Action":"output","Package":"torpor/a","Test":"TestRoot","Output":"    a_test.go:9: needs root\n"}
{"Action":"output","Package":"torpor/a","Test":"TestRoot","Output":"--- SKIP: TestRoot (0.00s)\n"}
{"Action":"skip","Package":"torpor/a","Test":"TestRoot"}
{"Action":"output","Package":"torpor/a","Output":"FAIL\n"}
{"Action":"fail","Package":"torpor/a","Elapsed":1.25}
{"Action":"skip","Package":"torpor/b"}
`
	const want = `    a_test.go:1: got 1, want 2
FAIL
FAIL  torpor/a  1.2s
skipped torpor/a TestRoot: a_test.go:9: needs root
failed torpor/a TestBad
failed torpor/a
1 passed, 1 failed, 1 skipped
`
	var out strings.Builder
	r := newReport(&out)
	if err := r.read(strings.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	if r.finish(true, false) {
		t.Error("a run with a failed test counts as passed")
	}
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		name            string
		passed, skipped int
		goFailed        bool
		strict, want    bool
	}{
		{name: "passed", passed: 3, strict: true, want: true},
		{name: "nothing ran", strict: true},
		{name: "did not build", passed: 3, goFailed: true},
		{name: "skipped", passed: 3, skipped: 1, want: true},
		{name: "skipped where nothing may be", passed: 3, skipped: 1, strict: true},
	} {
		r := newReport(&strings.Builder{})
		r.passed, r.skipped = tt.passed, tt.skipped
		if got := r.finish(tt.goFailed, tt.strict); got != tt.want {
			t.Errorf("%s: verdict %v, want %v", tt.name, got, tt.want)
		}
	}
}

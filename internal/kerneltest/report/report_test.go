package main

import (
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	const (
		start = `{"Action":"start","Package":"p"}` + "\n"
		pass  = `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n"
		skip  = `{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:3: needs root\n"}` + "\n" +
			`{"Action":"skip","Package":"p","Test":"TestB"}` + "\n"
		fail = `{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:3: wrong\n"}` + "\n" +
			`{"Action":"fail","Package":"p","Test":"TestC"}` + "\n"
		open     = `{"Action":"output","Package":"p","Test":"TestD","Output":"panic: test timed out\n"}` + "\n"
		passed   = `{"Action":"pass","Package":"p","Elapsed":1.5}` + "\n"
		failed   = `{"Action":"fail","Package":"p","Elapsed":1.5}` + "\n"
		noBuild  = `{"ImportPath":"p","Action":"build-output","Output":"p.go:1: syntax error\n"}` + "\n" + failed
		testless = `{"Action":"output","Package":"q","Output":"?   \tq\t[no test files]\n"}` + "\n" + `{"Action":"skip","Package":"q"}` + "\n"
	)
	for name, c := range map[string]struct {
		input   string
		noSkips bool
		ok      bool
		says    []string
	}{
		"passed":          {start + pass + passed + testless, true, true, []string{"packages: 1 passed, 0 failed, 1 without tests", "tests:    1 passed, 0 failed, 0 skipped", "PASS"}},
		"skip allowed":    {start + pass + skip + passed, false, true, []string{"skipped: p TestB: b_test.go:3: needs root", "1 skipped"}},
		"skip forbidden":  {start + pass + skip + passed, true, false, []string{"FAIL"}},
		"failed":          {start + pass + fail + failed, false, false, []string{"wrong", "failed:  p TestC", "1 failed"}},
		"timed out":       {start + pass + open + failed, false, false, []string{"panic: test timed out", "p TestD (did not end)"}},
		"does not build":  {start + noBuild, false, false, []string{"syntax error", "failed:  p\n"}},
		"leaks after all": {start + pass + failed, false, false, []string{"packages: 0 passed, 1 failed"}},
		"nothing ran":     {"go: no such tool\n", false, false, []string{"go: no such tool", "FAIL"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			ok, err := run(strings.NewReader(c.input), &out, c.noSkips)
			if err != nil || ok != c.ok {
				t.Errorf("run = %v, %v\n%s", ok, err, &out)
			}
			for _, want := range c.says {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in:\n%s", want, &out)
				}
			}
		})
	}
}

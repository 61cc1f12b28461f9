package bench

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"torpor/internal/kerneltest"
)

// TestFailingCRIU checks that a CRIU that fails is said to, in its own words,
// and that the program it was to dump does not stay.
func TestFailingCRIU(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("python3"))
	dir := t.TempDir()
	criu := filepath.Join(dir, "criu")
	script := `#!/bin/sh
case $1 in
--version) echo "Version: 0.1"; echo "GitID: 0" ;;
dump) echo "(00.01) Error (criu/x.c:1): no such luck" >"$3/dump.log"; exit 1 ;;
esac
`
	if err := os.WriteFile(criu, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	o := WakeOptions{Cycles: 1, Program: "python3", Dir: dir, CRIU: criu}
	r := criuCase(context.Background(), o, 1)
	if r.Version != "0.1" || !strings.Contains(r.Problem, "no such luck") {
		t.Errorf("result %+v", r)
	}
	o.CRIU = filepath.Join(dir, "none")
	if r := criuCase(context.Background(), o, 1); r.Problem == "" {
		t.Errorf("result %+v", r)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "torpor-bench-*")); err != nil || len(left) > 0 {
		t.Errorf("left %q, %v", left, err)
	}
}

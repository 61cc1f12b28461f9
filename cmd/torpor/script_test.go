package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"torpor": main})
}

// TestScripts runs the command lines of testdata/script. None of them reaches a
// daemon; those that do are in internal/e2e.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("TORPOR_RUN_DIR", env.WorkDir+"/run")
			env.Setenv("TORPOR_STATE_DIR", env.WorkDir+"/state")
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits CODE torpor ARG... runs a command line and compares its exit code;
// stdout and stderr of the script are its.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || args[1] != "torpor" {
		ts.Fatalf("usage: exits CODE torpor ARG...")
	}
	err := ts.Exec("sh", append([]string{"-c", `torpor "$@"; echo "exit code $?" >&2`, "sh"}, args[2:]...)...)
	ts.Check(err)
	if got := ts.ReadFile("stderr"); !endsWith(got, "exit code "+args[0]+"\n") {
		ts.Fatalf("want exit code %s of torpor %q", args[0], args[2:])
	}
}

func endsWith(s, suffix string) bool {
	return len(s) >= len(suffix) && s[len(s)-len(suffix):] == suffix
}

// TestEveryCommandHelps keeps purpose and examples of commands from being
// forgotten.
func TestEveryCommandHelps(t *testing.T) {
	root := newRootCommand(&environment{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr})
	for _, cmd := range root.Commands() {
		if cmd.Short == "" {
			t.Errorf("%s has no purpose", cmd.Name())
		}
		if cmd.Hidden || cmd.HasSubCommands() || cmd.Name() == "version" || cmd.Name() == "help" {
			continue
		}
		if cmd.Example == "" {
			t.Errorf("%s has no example", cmd.Name())
		}
	}
}

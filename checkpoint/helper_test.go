package checkpoint

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
)

// helperArg makes the test binary a helper process instead of a test. It dumps
// or restores a tree and kills itself at a step.
const helperArg = "checkpoint-helper"

// helper's arguments are what to do, the step, the tree's directory, its
// init's pid and its socket, and the directory of a ready checkpoint.
func helper(args []string) int {
	pid, err := strconv.Atoi(args[3])
	if err != nil {
		panic(err)
	}
	tree := &testTree{t: new(testing.T), dir: args[2], holder: &Holder{PID: pid, Socket: args[4]}}
	at := func(step string) error {
		if step == args[1] {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // it takes a moment
		}
		return nil
	}
	fmt.Println("begin")
	switch args[0] {
	case "dump":
		_, err = tree.trySleep(DumpOptions{At: at})
	case "restore":
		_, err = tree.tryWake(RestoreOptions{At: at})
	case "ready":
		_, err = tree.tryReadyAt(args[5], at)
	case "restore-ready":
		_, err = tree.tryRestoreReadyAt(args[5], at)
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

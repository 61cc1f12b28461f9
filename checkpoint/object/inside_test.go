package object

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"torpor/internal/kerneltest"
	"torpor/kernel/proc"
)

// startInside starts a process in the container and returns its pid there.
func startInside(t *testing.T, c *scratch) string {
	t.Helper()
	kerneltest.Require(t, kerneltest.Program("nsenter"))
	cmd := exec.Command("nsenter", "--target", fmt.Sprint(c.PID), "--pid", "sleep", "1000")
	check(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait() // it was killed
	})
	for {
		children, err := proc.Children(cmd.Process.Pid)
		check(t, err)
		if len(children) == 0 {
			time.Sleep(time.Millisecond)
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", children[0]))
		check(t, err)
		for line := range strings.Lines(string(b)) {
			if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "NSpid:" {
				return fields[2]
			}
		}
	}
}

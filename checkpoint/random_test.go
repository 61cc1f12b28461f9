package checkpoint

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"testing"
	"time"
)

// TestKilledAnywhere kills the process that dumps or restores at random
// moments. The tree then runs, can be restored, or, if its own code was not
// what it executed just then, has ended; it never hangs.
func TestKilledAnywhere(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	program := compileC(t, "breadth")
	c := converse(t, program, "threads")
	outcomes := map[string]int{}
	for i := range 120 {
		what := []string{"dump", "restore"}[i%2]
		if what == "restore" {
			c.sleep(DumpOptions{})
		}
		c.killHelperAfter(what, time.Duration(random.IntN(5000))*time.Microsecond)
		time.Sleep(5 * time.Millisecond) // what dies with its tracer does so a little later
		if how := c.recoverTree(); c.alive() {
			outcomes[what+": "+how]++
			c.check()
			continue
		}
		outcomes[what+": it ended"]++
		c = converse(t, program, "threads")
	}
	t.Log(outcomes)
	if n := outcomes["restore: it ended"]; n > 0 {
		t.Errorf("%d trees were lost by a killed restore", n)
	}
}

// killHelperAfter runs a process that dumps or restores and kills it.
func (c *conversation) killHelperAfter(what string, d time.Duration) {
	c.t.Helper()
	cmd := exec.Command("/proc/self/exe", helperArg, what, "never", c.dir, fmt.Sprint(c.holder.PID), c.holder.Socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("begin"))); err != nil {
		c.t.Fatal(err)
	}
	time.Sleep(d)
	_ = cmd.Process.Kill() // it may have ended
	_ = cmd.Wait()
}

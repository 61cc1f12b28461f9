package checkpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clockProgram answers each line by its clocks, after a wait for a deadline of
// its own clock.
const clockProgram = `
import sys, threading, time
never = threading.Event()
print("ready", flush=True)
for line in sys.stdin:
    deadline = time.monotonic() + 0.05
    never.wait(0.05)
    print(line.strip(), time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.monotonic() >= deadline, flush=True)
`

// clocks asks for the clocks.
func (c *conversation) clocks(word string) (monotonic, boottime int64) {
	c.t.Helper()
	fmt.Fprintln(c.in, word)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(c.dir, "output"))
		if err != nil {
			c.t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			var waited string
			if n, _ := fmt.Sscan(strings.TrimPrefix(line, word+" "), &monotonic, &boottime, &waited); strings.HasPrefix(line, word+" ") && n == 3 {
				if waited != "True" {
					c.t.Errorf("%s: it did not wait for its deadline", word)
				}
				return monotonic, boottime
			}
		}
	}
	c.t.Fatalf("no answer to %s", word)
	return 0, 0
}

// TestReadyClocks restores a checkpoint of a machine that had been up for an
// hour longer: clocks go on from there, also over a sleep, and a second restore
// of what was restored does not lose it.
func TestReadyClocks(t *testing.T) {
	c := converse(t, python, "-u", "-c", clockProgram)
	monotonic, boottime := c.clocks("first")
	dir := filepath.Join(t.TempDir(), "ready")
	c.makeReady(dir)
	c.end()
	spec, err := ReadReady(dir, testKey)
	if err != nil {
		t.Fatal(err)
	}
	spec.Ready.Clocks.Monotonic += time.Hour
	spec.Ready.Clocks.Boottime += time.Hour
	if err := os.Remove(filepath.Join(dir, metaName)); err != nil {
		t.Fatal(err)
	}
	b, err := spec.Encode(testKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeDurably(filepath.Join(dir, metaName), b); err != nil {
		t.Fatal(err)
	}
	restored := restoreConversation(t, dir)
	later := func(word string) {
		t.Helper()
		m, b := restored.clocks(word)
		const hour = int64(time.Hour)
		if m < monotonic || b < boottime || m-monotonic < hour && word == "second" || m-monotonic > hour+int64(5*time.Minute) {
			t.Errorf("%s: monotonic time went from %d to %d, boot time from %d to %d", word, monotonic, m, boottime, b)
		}
		monotonic, boottime = m, b
	}
	later("second")
	for _, word := range []string{"third", "fourth"} {
		restored.sleep(DumpOptions{Verify: true})
		restored.wake()
		later(word)
	}
	again := filepath.Join(t.TempDir(), "again")
	restored.makeReady(again)
	restored.end()
	restored = restoreConversation(t, again)
	later("fifth")
}

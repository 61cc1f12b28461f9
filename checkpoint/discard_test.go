package checkpoint

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// lastLines are the last lines of the program's output.
func (tree *testTree) lastLines(n int) string {
	b, err := os.ReadFile(filepath.Join(tree.dir, "output"))
	if err != nil {
		tree.t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}

// libjemalloc is where the distribution has it.
const libjemalloc = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"

func preload(library string, more ...string) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		cmd.Env = append(os.Environ(), more...)
		if library != "" {
			cmd.Env = append(cmd.Env, "LD_PRELOAD="+library)
		}
	}
}

// TestDiscard shows for each allocator that memory given back by MADV_DONTNEED
// is zero or taken for dirty after a wake, and that jemalloc would hand out old
// data if the memory were not locked.
func TestDiscard(t *testing.T) {
	program := compileC(t, "discard")
	for _, test := range []struct {
		name    string
		library string
		env     []string
		locking locking
		want    string
	}{
		{"glibc", "", []string{"MALLOC_TRIM_THRESHOLD_=4096"}, lockByRuntime, "ok"},
		{"glibc-one-arena", "", []string{"MALLOC_ARENA_MAX=1"}, lockByRuntime, "ok"},
		{"glibc-without-lock", "", []string{"MALLOC_TRIM_THRESHOLD_=4096"}, lockNever, "ok"},
		{"jemalloc", libjemalloc, nil, lockByRuntime, "ok"},
		{"jemalloc-decay-0", libjemalloc, []string{"MALLOC_CONF=dirty_decay_ms:0,muzzy_decay_ms:0"}, lockByRuntime, "ok"},
		{"jemalloc-without-lock", libjemalloc, []string{"MALLOC_CONF=dirty_decay_ms:0,muzzy_decay_ms:0"}, lockNever, "dirty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.library != "" {
				if _, err := os.Stat(test.library); err != nil {
					t.Skipf("needs libjemalloc2: %v", err)
				}
			}
			c := converseWith(t, preload(test.library, test.env...), program)
			for cycle := range 3 {
				c.sleep(DumpOptions{locking: test.locking})
				c.wake()
				fmt.Fprintln(c.in, "check")
				want := test.want
				if cycle > 0 && want == "dirty" {
					return // it was shown
				}
				c.expect(want)
				t.Logf("cycle %d: %s", cycle, c.lastLines(2))
			}
		})
	}
}

const nodeDiscard = `
const chunks = [];
function fill() {
  for (let i = 0; i < 20; i++) chunks.push(Buffer.alloc(1 << 20, 0xa5), new Uint32Array(100000).fill(0xa5a5a5a5), new Array(50000).fill(i + 0.5));
  for (let i = 0; i < 50000; i++) chunks.push({a: i, b: "x" + i});
}
function look() {
  chunks.length = 0; gc(); gc();
  let dirty = 0;
  for (let n = 0; n < 30; n++) {
    for (const v of Buffer.alloc(1 << 20)) dirty += v !== 0;
    for (const v of new Float64Array(20000)) dirty += v !== 0;
    for (const v of new Uint8Array(500)) dirty += v !== 0;
  }
  fill(); gc();
  return dirty;
}
fill(); look(); look();
console.log("ready");
require("readline").createInterface({input: process.stdin}).on("line", () => {
  const dirty = look();
  console.log(dirty + " dirty bytes");
  console.log(dirty ? "dirty" : "ok");
});
`

// TestDiscardNode does the same with V8, which treats a failing MADV_DONTNEED
// as fatal in places: its memory is not locked.
func TestDiscardNode(t *testing.T) {
	node := needProgram(t, "node")
	for _, flags := range [][]string{{"--expose-gc"}, {"--expose-gc", "--optimize-for-size", "--gc-interval=5000"}} {
		t.Run(strings.Join(flags[1:], ""), func(t *testing.T) {
			c := converse(t, append(append([]string{node}, flags...), "-e", nodeDiscard)...)
			for range 3 {
				c.sleep(DumpOptions{})
				c.wake()
				c.check()
				t.Log(c.lastLines(2))
			}
		})
	}
}

// TestDiscardNodeWithAllocator covers V8 beside jemalloc: one may not see
// MADV_DONTNEED fail, the other needs it to. Their memory is made anonymous
// again and read, which is exact and slower.
func TestDiscardNodeWithAllocator(t *testing.T) {
	node := needProgram(t, "node")
	if _, err := os.Stat(libjemalloc); err != nil {
		t.Skipf("needs libjemalloc2: %v", err)
	}
	c := converseWith(t, preload(libjemalloc, "MALLOC_CONF=dirty_decay_ms:0,muzzy_decay_ms:0"), node, "--expose-gc", "-e", nodeDiscard)
	for range 3 {
		c.sleep(DumpOptions{Verify: true})
		woken := c.wake()
		t.Logf("restore %v", woken.Phases)
		c.check()
	}
}

const javaDiscard = `
import java.io.*;
import java.util.*;

public class Discard {
  static int look() {
    int dirty = 0;
    for (int round = 0; round < 3; round++) {
      List<byte[]> kept = new ArrayList<>();
      for (int i = 0; i < 60; i++) {
        byte[] b = new byte[1 << 20];
        for (byte v : b) if (v != 0) dirty++;
        Arrays.fill(b, (byte) 0xa5);
        kept.add(b);
        for (int j = 0; j < 1000; j++) { byte[] small = new byte[100]; for (byte v : small) if (v != 0) dirty++; Arrays.fill(small, (byte) 0xa5); }
      }
      kept = null;
      System.gc(); // the heap shrinks
    }
    return dirty;
  }
  public static void main(String[] args) throws IOException {
    look();
    System.out.println("ready");
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
    while (in.readLine() != null) {
      int dirty = look();
      System.out.println(dirty + " dirty bytes");
      System.out.println(dirty == 0 ? "ok" : "dirty");
    }
  }
}
`

func TestDiscardJava(t *testing.T) {
	java, javac := needProgram(t, "java"), needProgram(t, "javac")
	dir := t.TempDir()
	writeFile(t, dir, "Discard.java", javaDiscard)
	if out, err := exec.Command(javac, "-d", dir, filepath.Join(dir, "Discard.java")).CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, out)
	}
	for _, collector := range []string{"G1", "Serial", "Shenandoah"} {
		t.Run(collector, func(t *testing.T) {
			c := converse(t, java, "-Xmx200m", "-Xms8m", "-XX:+Use"+collector+"GC", "-XX:MinHeapFreeRatio=5", "-XX:MaxHeapFreeRatio=10",
				"-XX:-ShrinkHeapInSteps", "-cp", dir, "Discard")
			for range 2 {
				c.sleep(DumpOptions{})
				c.wake()
				c.check()
				t.Log(c.lastLines(2))
			}
		})
	}
}

const goDiscard = `package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
)

var kept [][]byte

func look() int {
	dirty := 0
	kept = nil
	debug.FreeOSMemory()
	for i := range 200 {
		b := make([]byte, 1000<<(i%12))
		for _, v := range b {
			if v != 0 {
				dirty++
			}
		}
		for j := range b {
			b[j] = 0xa5
		}
		kept = append(kept, b)
	}
	return dirty
}

func main() {
	look()
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		dirty := look()
		fmt.Println(dirty, "dirty bytes")
		if dirty == 0 {
			fmt.Println("ok")
		} else {
			fmt.Println("dirty")
		}
	}
}
`

func TestDiscardGo(t *testing.T) {
	c := converse(t, goBuild(t, goDiscard))
	for range 3 {
		c.sleep(DumpOptions{Verify: true})
		c.wake()
		c.check()
		t.Log(c.lastLines(2))
	}
}

// ends sleeps with a remedy switched to the wrong choice, looks, and reports
// whether the program then fails in any way.
func (c *conversation) ends(wrong locking) bool {
	for range 4 {
		if _, err := c.trySleep(DumpOptions{locking: wrong}); err != nil {
			return true
		}
		c.wake()
		fmt.Fprintln(c.in, "check")
		for deadline := time.Now().Add(20 * time.Second); c.alive() && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if last := c.lastLines(1); last == "dirty" {
				return true
			} else if n := strings.Count(c.lastLines(1000), "; ok"); last == "ok" && n > c.said {
				c.said = n
				break
			}
		}
		if !c.alive() {
			return true
		}
	}
	return false
}

// TestDiscardChoice shows that no single choice is right for all: Go's
// collector takes discarded memory for zeros, V8 dies when it can not discard.
func TestDiscardChoice(t *testing.T) {
	t.Run("go-without-lock", func(t *testing.T) {
		c := converse(t, goBuild(t, goDiscard))
		c.said = 0
		if !c.ends(lockNever) {
			t.Error("a Go program does not mind old data; is the lock needed?")
		}
	})
	t.Run("node-with-lock", func(t *testing.T) {
		c := converse(t, needProgram(t, "node"), "--expose-gc", "--optimize-for-size", "-e", nodeDiscard)
		c.said = 0
		if !c.ends(lockAlways) {
			t.Error("node does not mind a failing discard; it could be locked")
		}
	})
}

package logvolume

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"torpor/block"
	"torpor/block/backing"
	"torpor/internal/kerneltest"
)

// killVariable tells the test binary to be the process that is killed: the
// directory with the disks, and a seed.
const killVariable = "TORPOR_TEST_LOG"

func TestMain(m *testing.M) {
	if text := os.Getenv(killVariable); text != "" {
		if err := writeUntilKilled(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	kerneltest.Main(m)
}

const killBlocks = 2048

// openBacked opens a log on files, which it makes if there are none.
func openBacked(dir string, o Options) (*Log, error) {
	_, err := os.Stat(filepath.Join(dir, "0"))
	fresh := err != nil
	var disks []Disk
	for i := range 6 {
		path := filepath.Join(dir, fmt.Sprint(i))
		if fresh {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return nil, err
			}
			if err := os.Truncate(path, 16<<20); err != nil {
				return nil, err
			}
		}
		d, err := backing.OpenFile(path, backing.Options{})
		if err != nil {
			return nil, err
		}
		disks = append(disks, Disk{path, d})
	}
	if !fresh {
		return Open(disks, o)
	}
	if err := Create(disks, testSpec(4, 2)); err != nil {
		return nil, err
	}
	l, err := Open(disks, o)
	if err != nil {
		return nil, err
	}
	return l, l.CreateVolume("v", killBlocks*4096)
}

// writeUntilKilled does operations, and prints the seed from which each is made
// before it begins: "op N", and what is durable: "flushed N".
func writeUntilKilled(text string) error {
	dir, seedText, _ := strings.Cut(text, "\n")
	seed, err := strconv.ParseUint(seedText, 10, 64)
	if err != nil {
		return err
	}
	l, err := openBacked(dir, Options{Events: func(Event) {}, DirtyBytes: 4 << 20, CheckpointBytes: 4 << 20})
	if err != nil {
		return err
	}
	v, err := l.OpenVolume("v")
	if err != nil {
		return err
	}
	rnd := rand.New(rand.NewPCG(seed, 4))
	for number := 1; ; number++ {
		op := randomKillOp(rnd)
		fmt.Printf("op %d\n", number)
		if err := op.do(v, number, seed); err != nil {
			return err
		}
		if op.flush {
			fmt.Printf("flushed %d\n", number)
		}
	}
}

type killOp struct {
	start, count   int
	discard, flush bool
}

func randomKillOp(rnd *rand.Rand) killOp {
	op := killOp{count: 1, discard: rnd.IntN(12) == 0, flush: rnd.IntN(6) == 0}
	if rnd.IntN(3) == 0 {
		op.count = 1 + rnd.IntN(200)
	}
	op.start = rnd.IntN(killBlocks - op.count + 1)
	return op
}

func (op killOp) do(v block.Device, number int, seed uint64) error {
	var flags block.Flags
	if op.flush {
		flags = block.FUA
	}
	if op.discard {
		return v.Discard(block.Range{Start: block.Offset(op.start) * 4096, LenBytes: int64(op.count) * 4096}, flags)
	}
	p := make([]byte, op.count*4096)
	for i := range op.count {
		content(p[i*4096:(i+1)*4096], number, op.start+i)
	}
	return v.WriteAt(p, block.Offset(op.start)*4096, flags)
}

// TestKill kills a process that writes to a log on files, again and again, and
// looks at what is left.
func TestKill(t *testing.T) {
	watchdog(t, 2*time.Minute)
	dir := t.TempDir()
	rnd := testSeed(t)
	// What the process before left: which operation of which process each block is of.
	for range 20 * *roundsFlag {
		killOnce(t, dir, rnd)
	}
}

func killOnce(t *testing.T, dir string, rnd *rand.Rand) {
	t.Helper()
	seed := rnd.Uint64()
	s := &stamped{t: t, rnd: rnd, blocks: killBlocks}
	begun, flushed := runAndKill(t, dir, seed, time.Duration(rnd.IntN(250))*time.Millisecond)
	ops := rand.New(rand.NewPCG(seed, 4))
	for number := 1; number <= begun; number++ {
		op := randomKillOp(ops)
		s.ops = append(s.ops, stampedOp{start: op.start, count: op.count, discard: op.discard, flushed: min(flushed, number)})
	}
	if begun == 0 {
		return
	}
	l, err := openBacked(dir, quietly)
	must(t, err)
	v := openVolume(t, l, "v")
	if err := s.isPrefix(s.versions(v), 0); err != nil {
		t.Fatal(err)
	}
	mustCheck(t, l)
	// The next process begins with nothing.
	must(t, v.Discard(block.Range{LenBytes: killBlocks * 4096}, block.FUA))
	must(t, l.Close())
}

// runAndKill returns how many operations the process had begun, and how many were durable.
func runAndKill(t *testing.T, dir string, seed uint64, after time.Duration) (begun, flushed int) {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%s\n%d", killVariable, dir, seed))
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	lines := bufio.NewScanner(out)
	var timer *time.Timer
	for lines.Scan() {
		if timer == nil {
			timer = time.AfterFunc(after, func() { _ = c.Process.Kill() })
		}
		what, number, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.Atoi(number)
		must(t, err)
		if what == "op" {
			begun = n
		} else {
			flushed = n
		}
	}
	if err := c.Wait(); err == nil || timer == nil {
		t.Fatalf("the process ended by itself: %v", err)
	}
	return begun, flushed
}

package backing_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"torpor/block"
	"torpor/block/backing"
	"torpor/internal/kerneltest"
)

// The test binary is also the victim of TestKilled: it opens the directory
// of victimPath, works as victimSeed says, and writes a byte after each step.
const (
	victimPath = "TORPOR_TEST_VICTIM"
	victimSeed = "TORPOR_TEST_VICTIM_SEED"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(victimPath); path != "" {
		if err := beVictim(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	kerneltest.Main(m)
}

const (
	killedChunk  = 32 << 10
	killedBlocks = 100
)

func beVictim(path string) error {
	seed, err := strconv.ParseUint(os.Getenv(victimSeed), 10, 64)
	if err != nil {
		return err
	}
	d, err := backing.OpenDirectory(path, backing.Options{Direct: seed%2 == 0})
	if err != nil {
		return err
	}
	d.LimitOpen(3)
	script := newScript(seed)
	for {
		if err := script.next().do(d); err != nil {
			return err
		}
		if _, err := os.Stdout.Write([]byte{'.'}); err != nil {
			return err
		}
	}
}

// step is a change of a range of blocks, which hold mark afterwards, or a flush.
type step struct {
	block.Range
	mark    byte
	discard bool
	flags   block.Flags
}

func (s step) content() []byte { return bytes.Repeat([]byte{s.mark}, int(s.LenBytes)) }

func (s step) do(d block.Device) error {
	switch {
	case s.LenBytes == 0:
		return d.Flush()
	case s.discard:
		return d.Discard(s.Range, s.flags)
	case s.mark == 0:
		return d.Zero(s.Range, s.flags)
	}
	return d.WriteAt(s.content(), s.Start, s.flags)
}

// script makes the same steps for the same seed.
type script struct{ random *rand.Rand }

func newScript(seed uint64) *script { return &script{rand.New(rand.NewPCG(seed, 0))} }

func (s *script) next() step {
	n := 1 + s.random.IntN(30)
	at := s.random.IntN(killedBlocks - n + 1)
	next := step{Range: block.Range{Start: block.Offset(at) * 4096, LenBytes: int64(n) * 4096}}
	next.flags = []block.Flags{0, 0, 0, block.FUA}[s.random.IntN(4)]
	switch s.random.IntN(10) {
	case 0:
		next.LenBytes = 0
	case 1:
	case 2, 3:
		next.discard = true
	default:
		next.mark = byte(1 + s.random.IntN(255))
	}
	return next
}

// TestKilled kills a process that changes a directory, many times. What it had
// done is there, and each block of what it was doing was done or not.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := backing.CreateDirectory(path, backing.DirectorySpec{SizeBytes: killedBlocks * 4096, ChunkBytes: killedChunk}); err != nil {
		t.Fatal(err)
	}
	held := make([]byte, killedBlocks*4096)
	steps := 0
	for seed := range uint64(30) {
		done := killVictim(t, path, seed, int(seed*3))
		steps += done
		script := newScript(seed)
		for range done {
			if s := script.next(); s.LenBytes > 0 {
				copy(held[s.Start:], s.content())
			}
		}
		d := openDirectory(t, path)
		got := make([]byte, len(held))
		if err := d.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if err := compareKilled(got, held, script.next()); err != nil {
			t.Fatalf("seed %d, after %d steps: %v", seed, done, err)
		}
		held = got
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		for _, name := range names(t, path) {
			if name != "device.json" && !strings.HasPrefix(name, "000000") {
				t.Errorf("seed %d: left %s", seed, name)
			}
		}
	}
	t.Logf("%d steps were done", steps)
}

// killVictim starts a process, kills it after it has done some steps, and returns
// how many it has done.
func killVictim(t *testing.T, path string, seed uint64, after int) int {
	t.Helper()
	victim := exec.Command(os.Args[0])
	victim.Env = append(os.Environ(), victimPath+"="+path, fmt.Sprint(victimSeed, "=", seed))
	var complaint bytes.Buffer
	victim.Stderr = &complaint
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	first, err := io.ReadFull(out, make([]byte, after+1))
	if err := errors.Join(err, victim.Process.Kill()); err != nil {
		t.Error(err)
	}
	rest, _ := io.Copy(io.Discard, out)
	victim.Wait()
	if status := victim.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
		t.Fatalf("victim ended by itself: %v: %s", victim.ProcessState, complaint.Bytes())
	}
	return first + int(rest)
}

// compareKilled compares what is there with what was held before a last step,
// of which each block may have been done.
func compareKilled(got, held []byte, last step) error {
	for at := 0; at < len(got); at += 4096 {
		is := got[at : at+4096]
		under := block.Offset(at) >= last.Start && block.Offset(at) < last.End()
		if bytes.Equal(is, held[at:at+4096]) || under && bytes.Equal(is, last.content()[:4096]) {
			continue
		}
		return fmt.Errorf("block at %d begins with %d; it held %d, and the last step was %+v", at, is[0], held[at], last)
	}
	return nil
}

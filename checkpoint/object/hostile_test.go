package object

import (
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torpor/host"
	"torpor/kernel/socket"
)

// TestMakeHostile changes values of real descriptions at random and makes what
// is still valid. TORPOR_TEST_ROUNDS says how many.
func TestMakeHostile(t *testing.T) {
	tr := newTransfer(t)
	tr.addEverything()
	tr.describe()
	c := newScratch(t)
	tr.makeEverything(c)
	original, err := json.Marshal(tr.specs)
	check(t, err)
	rounds := 2000
	if n, err := strconv.Atoi(os.Getenv("TORPOR_TEST_ROUNDS")); err == nil {
		rounds = n
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	valid, made := 0, 0
	for range rounds {
		var tree any
		check(t, json.Unmarshal(original, &tree))
		for range 1 + random.IntN(3) {
			tree = mutate(random, tree)
		}
		b, err := json.Marshal(tree)
		check(t, err)
		var specs []Spec
		if json.Unmarshal(b, &specs) != nil {
			continue
		}
		if err := Validate(specs); err != nil {
			if !errors.Is(err, host.ErrCorrupt) {
				t.Errorf("validate %s: %v", b, err)
			}
			continue
		}
		valid++
		if tryMake(t, c, tr.dir, specs) {
			made++
		}
		if t.Failed() {
			t.Fatalf("made of %s", b)
		}
	}
	t.Logf("%d rounds: %d valid, %d made", rounds, valid, made)
	if valid < rounds/10 || made < rounds/20 {
		t.Error("too few are valid to say anything")
	}
}

// tryMake makes specs, which must neither take long nor leave anything open, and
// closes what it made.
func tryMake(t *testing.T, c *scratch, dir string, specs []Spec) bool {
	t.Helper()
	before := openDescriptors(t)
	begun := time.Now()
	fds, err := Make(c.Container, dir, specs, MakeOptions{})
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
	if err == nil && len(fds) != len(specs) {
		t.Errorf("%d descriptors of %d", len(fds), len(specs))
	}
	for i, fd := range fds {
		if specs[i].Kind == KindSocket {
			_ = socket.Abandon(fd) // not to wait for what it lingers for
		}
		check(t, unix.Close(fd))
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
	return err == nil
}

// mutate changes one value somewhere in a tree of JSON.
func mutate(random *rand.Rand, node any) any {
	switch n := node.(type) {
	case []any:
		if len(n) > 0 && random.IntN(20) > 0 {
			i := random.IntN(len(n))
			n[i] = mutate(random, n[i])
			return n
		}
		if len(n) > 1 {
			i, j := random.IntN(len(n)), random.IntN(len(n))
			n[i], n[j] = n[j], n[i]
		}
		return n
	case map[string]any:
		keys := slices.Sorted(maps.Keys(n))
		if len(keys) == 0 {
			return n
		}
		k := keys[random.IntN(len(keys))]
		if random.IntN(20) == 0 {
			delete(n, k)
			return n
		}
		n[k] = mutate(random, n[k])
		return n
	case float64:
		return []float64{0, 1, 2, 3, 5, -1, n + 1, n - 1, n * 2, float64(random.IntN(70)), float64(random.Uint32()), float64(random.Uint64() >> 2)}[random.IntN(12)]
	case bool:
		return !n
	case string:
		return []string{"", n + n, "/", "/dev", "/dev/tun", "/proc/1/mem", "/data", "/data/everything", "AAAA", "reset", "idle", "connected",
			"listening", "[::1]:8102", "127.0.0.1:8100", "standard", "content"}[random.IntN(17)]
	}
	return node
}

package checkpoint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// hostileSeeds are how many changed checkpoints a plain test run restores.
const hostileSeeds = 150

// FuzzHostileReady changes values of a real ready checkpoint's meta, seals it
// again, and restores what it says then. However wrong that is, the restore
// neither panics nor hangs, and after an error no process is left.
func FuzzHostileReady(f *testing.F) {
	for seed := range uint64(hostileSeeds) {
		f.Add(seed)
	}
	defer func(was time.Duration) { restoreLimit = was }(restoreLimit)
	restoreLimit = 500 * time.Millisecond
	h := &hostile{dir: filepath.Join(f.TempDir(), "ready")}
	f.Fuzz(func(t *testing.T, seed uint64) {
		if h.original == nil {
			h.make(t)
		}
		h.restore(t, rand.New(rand.NewPCG(seed, 0)))
	})
	f.Logf("of %d checkpoints %d could be loaded, %d restored", h.tried, h.loaded, h.restored)
}

// hostile is a ready checkpoint whose meta is changed.
type hostile struct {
	dir                     string
	original                []byte // JSON of its Spec
	tried, loaded, restored int
}

func (h *hostile) make(t *testing.T) {
	t.Helper()
	c := converseWith(t, func(cmd *exec.Cmd) { cmd.Dir = "/" }, compileC(t, "breadth"), "varied")
	c.loopbackUp()
	c.makeReady(h.dir)
	c.check()
	c.end()
	spec, err := ReadReady(h.dir, testKey)
	if err != nil {
		t.Fatal(err)
	}
	if len(spec.Ready.Random[0].Places) == 0 {
		t.Error("no random state was found")
	}
	if h.original, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
}

// restore restores a checkpoint with some values changed.
func (h *hostile) restore(t *testing.T, random *rand.Rand) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(h.original))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	for range 1 + random.IntN(2) {
		mutate(random, h.part(random, tree.(map[string]any)))
	}
	b, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	h.tried++
	spec := new(Spec)
	if err := json.Unmarshal(b, spec); err != nil {
		return
	}
	meta, err := spec.Encode(testKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.dir, metaName), meta, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadReady(h.dir, testKey); err != nil {
		t.Log(err)
		return
	}
	h.loaded++
	fresh := startTree(t, nil)
	fresh.loopbackUp()
	fresh.readOnly() // what runs may be anything
	stuck := time.AfterFunc(time.Minute, func() { panic(fmt.Sprintf("stuck in a restore of %s", b)) })
	_, err = fresh.tryRestoreReady(h.dir)
	stuck.Stop()
	if err == nil {
		h.restored++
		return
	}
	t.Log(err)
	fresh.wantEmpty()
}

// part is what of the Spec is changed.
func (h *hostile) part(random *rand.Rand, spec map[string]any) any {
	ready := spec["ready"].(map[string]any)
	switch random.IntN(10) {
	case 0:
		return spec
	case 1:
		return ready
	case 2, 3:
		return ready["objects"]
	case 4, 5:
		return ready["random"]
	case 6:
		state := ready["random"].([]any)[0].(map[string]any)
		state["calls"] = []any{h.call(random)}
		return state["calls"]
	}
	return spec["processes"]
}

// call is one of a function somewhere in the program.
func (h *hostile) call(random *rand.Rand) any {
	spec := new(Spec)
	if err := json.Unmarshal(h.original, spec); err != nil {
		panic(err)
	}
	_, code := spec.Processes[0].ranges()
	in := code[random.IntN(len(code))]
	at := uint64(in.Start) + random.Uint64N(uint64(in.End-in.Start))
	step := map[string]any{"name": "f", "func": json.Number(strconv.FormatUint(at, 10)), "args": []any{"random", "result"}}
	return map[string]any{"every_thread": random.IntN(2) == 0, "steps": []any{step, maps.Clone(step)}}
}

// wantEmpty wants no process below the init, which reaps what has ended.
func (tree *testTree) wantEmpty() {
	tree.t.Helper()
	var pids []int
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		var err error
		if pids, err = ContainerTree(tree.holder.PID)(); err != nil {
			tree.t.Fatal(err)
		}
		if len(pids) == 0 {
			return
		}
	}
	tree.t.Errorf("processes %v are left", pids)
}

// readOnly makes all that the tree could write to on disk read-only.
func (tree *testTree) readOnly() {
	tree.t.Helper()
	run(tree.t, "nsenter", "-t", strconv.Itoa(tree.holder.PID), "-m", "sh", "-c",
		`mount --make-rprivate /; while read -r _ _ _ _ at _; do mount -o remount,bind,ro "$at"; done </proc/self/mountinfo 2>/dev/null; true`)
}

// mutate changes one value somewhere in a tree of JSON, in place.
func mutate(random *rand.Rand, node any) any {
	switch n := node.(type) {
	case []any:
		if len(n) == 0 {
			return n
		}
		i, j := random.IntN(len(n)), random.IntN(len(n))
		switch random.IntN(20) {
		case 0:
			n[i], n[j] = n[j], n[i]
		case 1:
			return slices.Delete(n, i, i+1)
		case 2:
			return append(n, n[i])
		default:
			n[i] = mutate(random, n[i])
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
	case json.Number:
		return mutateNumber(random, n)
	case bool:
		return !n
	case string:
		return []string{"", n + n, "/", "/dev/null", "AAAA", "image", "base", "anon", "stack", "copied", "zero", "bytes", "mt19937", "chacha8", "v8 math", "v8 seed"}[random.IntN(16)]
	}
	return node
}

func mutateNumber(random *rand.Rand, n json.Number) json.Number {
	v, err := strconv.ParseUint(n.String(), 10, 64)
	if err != nil {
		v = 0
	}
	values := []uint64{0, 1, 2, 3, v + 1, v - 1, v + 4096, v - 4096, v * 2, v / 2, v ^ 1<<random.IntN(64), uint64(random.IntN(70)), uint64(random.Uint32()),
		random.Uint64(), 1 << 62, 1<<63 - 1, ^uint64(0), 1 << 47}
	if random.IntN(20) == 0 {
		return "-1"
	}
	return json.Number(strconv.FormatUint(values[random.IntN(len(values))], 10))
}

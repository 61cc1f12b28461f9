package image

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestKilledAnywhere kills a process that pulls and removes an image over and
// over, at moments of no choice, and looks at what it left.
func TestKilledAnywhere(t *testing.T) {
	requireRoot(t)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	reg := newRegistryServer(t)
	many := newTar()
	for i := range 300 {
		many.file(fmt.Sprintf("dir%d/file%d", i%20, i), strings.Repeat("x", i))
	}
	small := newTar().dir("./").file("a", "x")
	whole := map[LayerID][]string{}
	l1, l2 := many.layer(t), small.layer(t)
	ref := reg.push(t, "app:1", buildImage(t, nil, l1, l2))
	// In pieces, so that there is time to die between them.
	reg.setAlter(func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
		inner.ServeHTTP(&slowWriter{w}, r)
	})

	reference := openStore(t)
	start := time.Now()
	img, err := reference.Pull(t.Context(), ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	once := time.Since(start)
	for _, l := range img.Layers {
		whole[l] = listTree(t, reference.layerTree(l))
	}

	dir := t.TempDir() + "/store"
	var found [3]int
	for range 25 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), pullDir+"="+dir, pullRef+"="+ref)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(random.Int64N(int64(3 * once))))
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if said.Len() > 0 {
			t.Fatalf("child failed by itself: %s", said.String())
		}
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		checkStore(t, s)
		for l := range s.layers {
			if diff := cmp.Diff(whole[l], listTree(t, s.layerTree(l))); diff != "" {
				t.Error("layer is not whole:", diff)
			}
		}
		if d := s.Damaged(); len(d) > 0 {
			t.Error(d)
		}
		found[len(s.images)]++
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("a pull takes %v; found no image %d times, one %d times", once, found[0], found[1])
	s := openStoreIn(t, dir)
	if _, err := s.Pull(t.Context(), ref, PullOptions{}); err != nil {
		t.Error(err)
	}
	checkStore(t, s)
}

// slowWriter passes an answer on in pieces.
type slowWriter struct{ http.ResponseWriter }

func (w *slowWriter) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		piece := p[n:min(n+1024, len(p))]
		if _, err := w.ResponseWriter.Write(piece); err != nil {
			return n, err
		}
		w.ResponseWriter.(http.Flusher).Flush()
		time.Sleep(time.Millisecond)
		n += len(piece)
	}
	return len(p), nil
}

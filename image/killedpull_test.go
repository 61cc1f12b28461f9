package image

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"torpor/host"
)

// TestKilledPull kills a process while the registry has sent nothing, half or
// all of a layer and the pull waits for more. The store then opens, holds
// nothing half-made, and takes the image at the next pull.
func TestKilledPull(t *testing.T) {
	requireRoot(t)
	var noise strings.Builder
	for i := range 40_000 {
		fmt.Fprintf(&noise, "%x", i*i*7919)
	}
	slow := newTar().file("a", "1").file("b", noise.String()).file("c", "1").layer(t)
	img := buildImage(t, nil, newTar().file("good", "1").layer(t), slow)
	digest, err := slow.Digest()
	if err != nil {
		t.Fatal(err)
	}
	body := blobBytes(t, slow)
	for _, part := range []int{0, 50, 100} {
		t.Run(fmt.Sprintf("%d%%", part), func(t *testing.T) {
			reg := newRegistryServer(t)
			ref := reg.push(t, "killed:1", img)
			sent := make(chan struct{}, 100)
			reg.setAlter(func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
				if !strings.HasSuffix(r.URL.Path, digest.String()) {
					inner.ServeHTTP(w, r)
					return
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(body)+1)) // all of it is not the end
				w.Write(body[:len(body)*part/100])
				w.(http.Flusher).Flush()
				sent <- struct{}{}
				<-r.Context().Done()
			})
			dir := t.TempDir() + "/store"
			killPull(t, dir, ref, sent)
			reg.setAlter(nil)
			s := openStoreIn(t, dir)
			if list := s.List(); len(list) != 0 || len(s.Damaged()) != 0 {
				t.Errorf("store lists %v, damaged %v", list, s.Damaged())
			}
			checkStore(t, s)
			if _, err := s.Pull(t.Context(), ref, PullOptions{Policy: host.PullAlways}); err != nil {
				t.Error(err)
			}
			checkStore(t, s)
		})
	}
}

// killPull starts a process that pulls ref into dir and kills it when sent says so.
func killPull(t *testing.T, dir, ref string, sent <-chan struct{}) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), pullDir+"="+dir, pullRef+"="+ref)
	var out bytes.Buffer
	child.Stdout, child.Stderr = &out, &out
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	select {
	case <-sent:
		if err := child.Process.Kill(); err != nil {
			t.Error(err)
		}
		<-ended
	case err := <-ended:
		t.Fatalf("pull ended by itself: %v: %s", err, out.String())
	}
}

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"torpor/host"
)

func TestPull(t *testing.T) {
	s, reg := openStore(t), newRegistryServer(t)
	base := newTar().dir("./").dir("etc").file("etc/a", "one").layer(t)
	zstd := newTar().dir("etc").file("etc/b", "two").layer(t, tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd))
	img := buildImage(t, func(c *v1.ConfigFile) {
		c.Config = v1.Config{
			Entrypoint: []string{"/run"}, Cmd: []string{"-x"}, Env: []string{"A=b"}, WorkingDir: "/w", User: "1:2",
			ExposedPorts: map[string]struct{}{"80/tcp": {}, "53/udp": {}, "9000-9001": {}},
			Volumes:      map[string]struct{}{"/data": {}}, Labels: map[string]string{"l": "v"}, StopSignal: "SIGQUIT",
			Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "ok"}, Interval: time.Second, Retries: 2},
		}
	}, base, zstd)
	ref := reg.push(t, "app:1", img)

	var steps []Progress
	got, err := s.Pull(t.Context(), ref, PullOptions{Progress: func(p Progress) { steps = append(steps, p) }})
	if err != nil {
		t.Fatal(err)
	}
	id, _ := img.ConfigName()
	digest, _ := img.Digest()
	here, _ := ParsePlatform("")
	want := Image{
		ID: ID(id.String()), Refs: []string{ref}, Digest: digest.String(), Platform: here.String(), SizeBytes: 6, Created: testTime,
		Config: Config{
			Entrypoint: []string{"/run"}, Command: []string{"-x"}, Env: []string{"A=b"}, WorkingDir: "/w", User: "1:2",
			ExposedPorts: []host.PortSpec{{Protocol: "udp", Target: 53}, {Protocol: "tcp", Target: 80}, {Protocol: "tcp", Target: 9000}, {Protocol: "tcp", Target: 9001}},
			Volumes:      []string{"/data"}, Labels: map[string]string{"l": "v"}, StopSignal: "SIGQUIT",
			Healthcheck: &host.Healthcheck{Test: []string{"CMD", "ok"}, Interval: time.Second, Retries: 2},
		},
		Layers: []LayerID{diffID(t, base), diffID(t, zstd)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if last := steps[len(steps)-1]; last.Phase != PhaseDone || last.Layers != 2 || last.TotalLayers != 2 {
		t.Errorf("last step %+v", last)
	}
	for _, key := range []string{ref, string(got.ID), got.ID.hex()[:12], "sha256:" + got.ID.hex()[:9]} {
		if found, err := s.Resolve(key); err != nil || found.ID != got.ID {
			t.Errorf("resolve %s: %v, %v", key, found.ID, err)
		}
	}

	// A second pull fetches no layer, and the default policy asks nobody.
	if _, err := s.Pull(t.Context(), ref, PullOptions{Policy: host.PullAlways}); err != nil {
		t.Fatal(err)
	}
	reg.Close()
	if _, err := s.Pull(t.Context(), ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, l := range []v1.Layer{base, zstd} {
		if n := reg.count(t, l); n != 1 {
			t.Errorf("layer fetched %d times", n)
		}
	}
	checkStore(t, s)
	// All of it survives.
	s.Close()
	s = openStoreIn(t, s.Dir())
	again, err := s.Resolve(ref)
	if diff := cmp.Diff(want, again); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func diffID(t testing.TB, l v1.Layer) LayerID {
	t.Helper()
	h, err := l.DiffID()
	if err != nil {
		t.Fatal(err)
	}
	return LayerID(h.String())
}

// checkStore compares the directory with what the store has in memory: every
// layer and image is in both, and nothing lies in tmp.
func checkStore(t testing.TB, s *Store) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	list := func(dir string) map[string]bool {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]bool{}
		for _, e := range entries {
			out[e.Name()] = true
		}
		return out
	}
	images, layers, used := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for id, r := range s.images {
		images[id.hex()] = true
		for _, l := range r.config.RootFS.DiffIDs {
			used[l.hex()] = true
		}
	}
	for l := range s.layers {
		layers[l.hex()] = true
	}
	if diff := cmp.Diff(images, list(s.imagesDir())); diff != "" {
		t.Error("images:", diff)
	}
	if diff := cmp.Diff(layers, list(s.layersDir())); diff != "" {
		t.Error("layers:", diff)
	}
	if diff := cmp.Diff(used, layers); diff != "" {
		t.Error("layers used:", diff)
	}
	if left := list(s.tmpDir()); len(left) > 0 {
		t.Error("left in tmp:", left)
	}
	if len(s.pins) > 0 || len(s.unpacking) > 0 {
		t.Error("pins or pulls left:", s.pins, s.unpacking)
	}
}

func TestPullPlatforms(t *testing.T) {
	s, reg := openStore(t), newRegistryServer(t)
	var index v1.ImageIndex = empty.Index
	images := map[string]v1.Image{}
	for _, p := range []string{"linux/amd64", "linux/arm64", "linux/arm/v6", "linux/arm/v7"} {
		parsed, _ := ParsePlatform(p)
		img := buildImage(t, func(c *v1.ConfigFile) {
			c.OS, c.Architecture, c.Variant = parsed.OS, parsed.Architecture, parsed.Variant
		}, newTar().file("arch", p).layer(t))
		images[p] = img
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: parsed.OS, Architecture: parsed.Architecture, Variant: parsed.Variant}}})
	}
	ref := reg.push(t, "multi", index)
	for asked, want := range map[string]string{
		"linux/amd64": "linux/amd64", "linux/x86_64": "linux/amd64", "linux/arm64/v8": "linux/arm64", "linux/arm/v7": "linux/arm/v7",
		"linux/arm/v8": "linux/arm/v7", "linux/armhf": "linux/arm/v7",
	} {
		got, err := s.Pull(t.Context(), ref, PullOptions{Platform: asked})
		if err != nil {
			t.Errorf("%s: %v", asked, err)
			continue
		}
		if id, _ := images[want].ConfigName(); got.ID != ID(id.String()) || got.Platform != want {
			t.Errorf("%s: got %s", asked, got.Platform)
		}
	}
	_, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/riscv64"})
	if !errors.Is(err, host.ErrNotFound) || !strings.Contains(err.Error(), "linux/arm/v6") {
		t.Errorf("riscv64: %v", err)
	}
	// The name moved on each time, so one image is left.
	if l := s.List(); len(l) != 1 {
		t.Errorf("%d images", len(l))
	}
	checkStore(t, s)

	wrong := reg.push(t, "wrong", images["linux/arm64"])
	_, err = s.Pull(t.Context(), wrong, PullOptions{Platform: "linux/amd64"})
	if !errors.Is(err, host.ErrInvalid) || !strings.Contains(err.Error(), "linux/arm64") {
		t.Errorf("wrong platform: %v", err)
	}
}

func TestPullByDigest(t *testing.T) {
	s, reg := openStore(t), newRegistryServer(t)
	img := buildImage(t, nil, newTar().file("a", "x").layer(t))
	ref := reg.push(t, "app:1", img)
	d, _ := img.Digest()
	byDigest := strings.TrimSuffix(ref, ":1") + "@" + d.String()
	got, err := s.Pull(t.Context(), byDigest, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{byDigest}, got.Refs); diff != "" {
		t.Error(diff)
	}
	none := strings.TrimSuffix(ref, ":1") + "@sha256:" + strings.Repeat("0", 64)
	if _, err := s.Pull(t.Context(), none, PullOptions{}); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("no such digest: %v", err)
	}
}

// TestPullBadBlobs has a registry that gives something else than the manifest says.
func TestPullBadBlobs(t *testing.T) {
	bad := newTar().file("bad", strings.Repeat("content ", 1000)).layer(t)
	good := newTar().file("good", "content").layer(t)
	img := buildImage(t, nil, good, bad)
	digest, _ := bad.Digest()
	raw := blobBytes(t, bad)
	config, _ := img.ConfigName()
	for _, c := range []struct {
		name, of string
		serve    func(w http.ResponseWriter)
	}{
		{"other content", digest.String(), func(w http.ResponseWriter) { w.Write(blobBytes(t, good)) }},
		{"one bit", digest.String(), func(w http.ResponseWriter) {
			flipped := append([]byte{}, raw...)
			flipped[len(flipped)/2] ^= 1
			w.Write(flipped)
		}},
		{"no archive", digest.String(), func(w http.ResponseWriter) { w.Write(make([]byte, len(raw))) }},
		{"longer", digest.String(), func(w http.ResponseWriter) { w.Write(append(append([]byte{}, raw...), 0)) }},
		{"longer, length unknown", digest.String(), func(w http.ResponseWriter) {
			w.Write(raw)
			w.(http.Flusher).Flush()
			w.Write(make([]byte, 100000))
		}},
		{"shorter", digest.String(), func(w http.ResponseWriter) { w.Write(raw[:len(raw)-1]) }},
		{"config", config.String(), func(w http.ResponseWriter) {
			raw, _ := img.RawConfigFile()
			w.Write([]byte(strings.Replace(string(raw), "linux", "Linux", 1)))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, reg := openStore(t), newRegistryServer(t)
			ref := reg.push(t, "app", img)
			reg.setAlter(func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
				if strings.HasSuffix(r.URL.Path, c.of) {
					c.serve(w)
					return
				}
				inner.ServeHTTP(w, r)
			})
			_, err := s.Pull(t.Context(), ref, PullOptions{})
			if !errors.Is(err, host.ErrCorrupt) || !strings.Contains(err.Error(), c.of) {
				t.Errorf("got %v", err)
			}
			t.Log(err)
			if l := s.List(); len(l) > 0 {
				t.Errorf("images: %v", l)
			}
			checkStore(t, s)
			// The same store takes the image once the registry is honest.
			reg.setAlter(nil)
			if _, err := s.Pull(t.Context(), ref, PullOptions{}); err != nil {
				t.Error(err)
			}
			checkStore(t, s)
		})
	}
}

func blobBytes(t testing.TB, l v1.Layer) []byte {
	t.Helper()
	r, err := l.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestPullWrongDiffID has a config that lies about a layer's content.
func TestPullWrongDiffID(t *testing.T) {
	s, reg := openStore(t), newRegistryServer(t)
	l := newTar().file("a", "x").layer(t)
	img := buildImage(t, func(c *v1.ConfigFile) {
		c.RootFS.DiffIDs = []v1.Hash{{Algorithm: "sha256", Hex: strings.Repeat("a", 64)}}
	}, l)
	ref := reg.push(t, "app", img)
	digest, _ := l.Digest()
	_, err := s.Pull(t.Context(), ref, PullOptions{})
	if !errors.Is(err, host.ErrCorrupt) || !strings.Contains(err.Error(), digest.String()) {
		t.Errorf("got %v", err)
	}
	checkStore(t, s)
}

// TestPullTransientErrors has a registry that breaks off twice.
func TestPullTransientErrors(t *testing.T) {
	s, reg := openStore(t), newRegistryServer(t)
	l := newTar().file("a", strings.Repeat("content ", 10000)).layer(t)
	ref := reg.push(t, "app", buildImage(t, nil, l))
	raw := blobBytes(t, l)
	digest, _ := l.Digest()
	var mu sync.Mutex
	left := 2
	reg.setAlter(func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
		mu.Lock()
		broken := left > 0 && strings.HasSuffix(r.URL.Path, digest.String())
		if broken {
			left--
		}
		mu.Unlock()
		if !broken {
			inner.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
		w.Write(raw[:len(raw)/2])
		panic(http.ErrAbortHandler)
	})
	if _, err := s.Pull(t.Context(), ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := reg.count(t, l); n != 3 {
		t.Errorf("layer fetched %d times", n)
	}
	checkStore(t, s)
}

func TestPullCancelled(t *testing.T) {
	s, reg := openStore(t), newRegistryServer(t)
	l := newTar().file("a", strings.Repeat("content ", 10000)).layer(t)
	ref := reg.push(t, "app", buildImage(t, nil, l))
	raw := blobBytes(t, l)
	digest, _ := l.Digest()
	ctx, cancel := context.WithCancel(t.Context())
	reg.setAlter(func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
		if !strings.HasSuffix(r.URL.Path, digest.String()) {
			inner.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
		w.Write(raw[:len(raw)/2])
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	})
	if _, err := s.Pull(ctx, ref, PullOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	checkStore(t, s)
}

// TestConcurrentPulls pulls images that share layers at the same time.
func TestConcurrentPulls(t *testing.T) {
	s, reg := openStore(t), newRegistryServer(t)
	var shared []v1.Layer
	for i := range 4 {
		shared = append(shared, newTar().file(fmt.Sprintf("shared%d", i), strings.Repeat("s", 100000)).layer(t))
	}
	var refs []string
	var own []v1.Layer
	for i := range 6 {
		l := newTar().file("own", fmt.Sprint(i)).layer(t)
		own = append(own, l)
		refs = append(refs, reg.push(t, fmt.Sprintf("app%d", i), buildImage(t, nil, append(shared[:4:4], l)...)))
	}
	var wait sync.WaitGroup
	for _, ref := range append(refs, refs...) {
		wait.Go(func() {
			if _, err := s.Pull(t.Context(), ref, PullOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for _, l := range append(shared, own...) {
		if n := reg.count(t, l); n != 1 {
			t.Errorf("layer fetched %d times", n)
		}
	}
	checkStore(t, s)
	for _, ref := range refs {
		if err := s.Remove(ref, false); err != nil {
			t.Error(err)
		}
		checkStore(t, s)
	}
}

// TestWaiterTakesOver has one pull give up while another waits for its layer.
func TestWaiterTakesOver(t *testing.T) {
	s, reg := openStore(t), newRegistryServer(t)
	l := newTar().file("a", strings.Repeat("content ", 10000)).layer(t)
	digest, _ := l.Digest()
	raw := blobBytes(t, l)
	first := reg.push(t, "first", buildImage(t, nil, l))
	second := reg.push(t, "second", buildImage(t, func(c *v1.ConfigFile) { c.Author = "other" }, l))
	ctx, cancel := context.WithCancel(t.Context())
	arrived := make(chan struct{})
	var once sync.Once
	reg.setAlter(func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
		stuck := false
		if strings.HasSuffix(r.URL.Path, digest.String()) {
			once.Do(func() { stuck = true })
		}
		if !stuck {
			inner.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
		w.Write(raw[:10])
		w.(http.Flusher).Flush()
		close(arrived)
		<-r.Context().Done()
	})
	var wait sync.WaitGroup
	wait.Go(func() {
		if _, err := s.Pull(ctx, first, PullOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("first: %v", err)
		}
	})
	<-arrived
	waiting := make(chan struct{})
	wait.Go(func() {
		_, err := s.Pull(t.Context(), second, PullOptions{Progress: func(p Progress) {
			if p.Phase == PhaseStart {
				close(waiting)
			}
		}})
		if err != nil {
			t.Errorf("second: %v", err)
		}
	})
	<-waiting
	cancel()
	wait.Wait()
	if n := reg.count(t, l); n != 2 {
		t.Errorf("layer fetched %d times", n)
	}
	checkStore(t, s)
}

func TestPullErrors(t *testing.T) {
	s, reg := openStore(t), newRegistryServer(t)
	denied := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer denied.Close()
	artifact := mutate.ConfigMediaType(buildImage(t, nil), "application/vnd.example.chart")
	for _, c := range []struct {
		name, ref string
		o         PullOptions
		kind      error
		says      string
	}{
		{"missing", reg.ref("none:1"), PullOptions{}, host.ErrNotFound, "not in the registry"},
		{"never", reg.ref("none:1"), PullOptions{Policy: host.PullNever}, host.ErrNotFound, ""},
		{"bad name", "UPPER CASE", PullOptions{}, host.ErrInvalid, ""},
		{"bad platform", reg.ref("none:1"), PullOptions{Platform: "amd64"}, host.ErrInvalid, "os/arch"},
		{"denied", strings.TrimPrefix(denied.URL, "http://") + "/app", PullOptions{}, nil, "docker login"},
		{"no tls", "192.168.255.254:1/app", PullOptions{Transport: refuseTLS{}}, host.ErrRefused, "plain http"},
		{"artifact", reg.push(t, "chart", artifact), PullOptions{}, host.ErrUnsupported, "not of an image"},
	} {
		_, err := s.Pull(t.Context(), c.ref, c.o)
		if err == nil || c.kind != nil && !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	checkStore(t, s)
}

// refuseTLS is a network on which nobody speaks TLS.
type refuseTLS struct{}

func (refuseTLS) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "https" {
		return nil, errors.New("no TLS here")
	}
	return nil, errors.New("plain http was let through to " + r.URL.Host)
}

func TestPullNestedIndex(t *testing.T) {
	s, reg := openStore(t), newRegistryServer(t)
	var index v1.ImageIndex = mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: buildImage(t, nil, newTar().file("a", "b").layer(t))})
	for i := range maxIndexDepth + 1 {
		ref := reg.push(t, fmt.Sprintf("nested:%d", i), index)
		_, err := s.Pull(t.Context(), ref, PullOptions{})
		if i < maxIndexDepth && err != nil || i == maxIndexDepth && !errors.Is(err, host.ErrInvalid) {
			t.Errorf("%d around the index: %v", i, err)
		}
		index = mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index})
	}
}

// TestPullOddManifests has what is no manifest refused in words.
func TestPullOddManifests(t *testing.T) {
	s := openStore(t)
	for _, c := range []struct {
		body, mediaType string
		kind            error
	}{
		{`{"schemaVersion":1}`, string(types.DockerManifestSchema1Signed), host.ErrUnsupported},
		{`{}`, string(types.OCIManifestSchema1), host.ErrInvalid},
		{`[]`, string(types.OCIManifestSchema1), host.ErrInvalid},
		{`{"manifests":[]}`, string(types.OCIImageIndex), host.ErrNotFound},
		{`{"schemaVersion":2,"config":{"digest":"sha256:../../etc","size":1}}`, string(types.OCIManifestSchema1), host.ErrInvalid},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", c.mediaType)
			io.WriteString(w, c.body)
		}))
		_, err := s.Pull(t.Context(), strings.TrimPrefix(server.URL, "http://")+"/app", PullOptions{})
		if !errors.Is(err, c.kind) {
			t.Errorf("%s: %v", c.body, err)
		}
		server.Close()
	}
	checkStore(t, s)
}

func TestShortRef(t *testing.T) {
	for in, want := range map[string]string{
		"redis": "redis:latest", "redis:7": "redis:7", "docker.io/library/redis:7": "redis:7", "user/app": "user/app:latest",
		"localhost:5000/app": "localhost:5000/app:latest", "library/a/b:1": "library/a/b:1",
	} {
		ref, err := name.ParseReference(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := shortRef(refKey(ref)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

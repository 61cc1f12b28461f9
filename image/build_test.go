package image

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ociregistry "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

var testTime = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

// entry makes a header as a tar tool would. body is content or link target.
func entry(kind byte, name, body string) (tar.Header, string) {
	h := tar.Header{Typeflag: kind, Name: name, Mode: 0o644, ModTime: testTime}
	switch kind {
	case tar.TypeDir:
		h.Mode = 0o755
	case tar.TypeSymlink, tar.TypeLink:
		h.Linkname, body = body, ""
	}
	h.Size = int64(len(body))
	return h, body
}

// tarBuilder writes archives, hostile ones too.
type tarBuilder struct {
	buf bytes.Buffer
	w   *tar.Writer
	err error
}

func newTar() *tarBuilder {
	b := &tarBuilder{}
	b.w = tar.NewWriter(&b.buf)
	return b
}

func (b *tarBuilder) add(h tar.Header, body string) *tarBuilder {
	if b.err == nil {
		b.err = b.w.WriteHeader(&h)
	}
	if b.err == nil {
		_, b.err = io.WriteString(b.w, body)
	}
	return b
}

func (b *tarBuilder) dir(name string) *tarBuilder { return b.add(entry(tar.TypeDir, name, "")) }
func (b *tarBuilder) file(name, body string) *tarBuilder {
	return b.add(entry(tar.TypeReg, name, body))
}
func (b *tarBuilder) symlink(name, to string) *tarBuilder {
	return b.add(entry(tar.TypeSymlink, name, to))
}
func (b *tarBuilder) link(name, to string) *tarBuilder { return b.add(entry(tar.TypeLink, name, to)) }
func (b *tarBuilder) bytes(t testing.TB) []byte {
	t.Helper()
	if b.err == nil {
		b.err = b.w.Close()
	}
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.buf.Bytes()
}

func (b *tarBuilder) layer(t testing.TB, o ...tarball.LayerOption) v1.Layer {
	t.Helper()
	raw := b.bytes(t)
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }, o...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// buildImage makes an image for the platform of the tests.
func buildImage(t testing.TB, edit func(*v1.ConfigFile), layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	here, _ := ParsePlatform("")
	config.OS, config.Architecture = here.OS, here.Architecture
	config.Created = v1.Time{Time: testTime}
	if edit != nil {
		edit(config)
	}
	img, err = mutate.ConfigFile(img, config)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// testRegistry is a registry on a loopback port that counts what is fetched.
type testRegistry struct {
	*httptest.Server
	inner http.Handler

	mu    sync.Mutex
	gets  map[string]int                                                   // by digest
	alter func(w http.ResponseWriter, r *http.Request, inner http.Handler) // of blob GETs; may be nil
}

func newRegistryServer(t testing.TB) *testRegistry {
	r := &testRegistry{inner: ociregistry.New(ociregistry.Logger(log.New(io.Discard, "", 0))), gets: map[string]int{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *testRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	_, digest, isBlob := strings.Cut(req.URL.Path, "/blobs/")
	if !isBlob || req.Method != http.MethodGet {
		r.inner.ServeHTTP(w, req)
		return
	}
	r.mu.Lock()
	r.gets[digest]++
	alter := r.alter
	r.mu.Unlock()
	if alter != nil {
		alter(w, req, r.inner)
		return
	}
	r.inner.ServeHTTP(w, req)
}

func (r *testRegistry) setAlter(f func(http.ResponseWriter, *http.Request, http.Handler)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.alter = f
}

func (r *testRegistry) count(t testing.TB, l v1.Layer) int {
	t.Helper()
	d, err := l.Digest()
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gets[d.String()]
}

func (r *testRegistry) ref(path string) string {
	return strings.TrimPrefix(r.URL, "http://") + "/" + path
}

// push uploads an image or index and returns its full reference.
func (r *testRegistry) push(t testing.TB, path string, what remote.Taggable) string {
	t.Helper()
	ref, err := name.ParseReference(r.ref(path))
	if err != nil {
		t.Fatal(err)
	}
	switch what := what.(type) {
	case v1.Image:
		err = remote.Write(ref, what)
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, what)
	default:
		err = remote.Put(ref, what)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ref.Name()
}

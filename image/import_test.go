package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"

	"torpor/host"
)

func TestImport(t *testing.T) {
	img := buildImage(t, nil, newTar().dir("./").file("a", "one").layer(t), newTar().file("b", "two").layer(t))
	id, _ := img.ConfigName()
	dir := writeLayout(t, "redis", "7", img)
	layoutTar := archiveDir(t, dir)
	saved := writeSaved(t, map[string]v1.Image{"redis:8": img})
	var zipped, zstded bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(layoutTar)
	z.Close()
	e, _ := zstd.NewWriter(&zstded)
	e.Write(saved)
	e.Close()

	for _, c := range []struct {
		name, file string
		content    []byte // nil: file is there
		o          ImportOptions
		want       string
	}{
		{"layout directory", dir, nil, ImportOptions{}, "redis:7"},
		{"layout directory, named", dir, nil, ImportOptions{Name: "other:1"}, "other:1"},
		{"layout archive", "nginx.tar", layoutTar, ImportOptions{}, "nginx:7"},
		{"layout archive, gzip", "app.tar.gz", zipped.Bytes(), ImportOptions{}, "app:7"},
		{"docker save", "saved.tar", saved, ImportOptions{}, "redis:8"},
		{"docker save, zstd", "saved.tar.zst", zstded.Bytes(), ImportOptions{Name: "mine"}, "mine:latest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openStore(t)
			file := c.file
			if c.content != nil {
				file = filepath.Join(t.TempDir(), c.file)
				if err := os.WriteFile(file, c.content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := s.Import(t.Context(), file, c.o)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 1 || got[0].ID != ID(id.String()) || got[0].SizeBytes != 6 {
				t.Fatalf("got %+v", got)
			}
			if diff := cmp.Diff([]string{c.want}, got[0].Refs); diff != "" {
				t.Error(diff)
			}
			if content, err := os.ReadFile(filepath.Join(s.layerTree(got[0].Layers[1]), "b")); string(content) != "two" {
				t.Errorf("content %q, %v", content, err)
			}
			checkStore(t, s)
		})
	}
}

// writeLayout makes an OCI image layout in a directory of that name.
func writeLayout(t testing.TB, base, refName string, images ...v1.Image) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), base)
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range images {
		var o []layout.Option
		if refName != "" {
			o = append(o, layout.WithAnnotations(map[string]string{refNameAnnotation: refName}))
		}
		c, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.AppendImage(img, append(o, layout.WithPlatform(*c.Platform()))...); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// writeSaved makes an archive as docker save does.
func writeSaved(t testing.TB, images map[string]v1.Image) []byte {
	t.Helper()
	tags := map[name.Tag]v1.Image{}
	for s, img := range images {
		tag, err := name.NewTag(s)
		if err != nil {
			t.Fatal(err)
		}
		tags[tag] = img
	}
	var buf bytes.Buffer
	if err := tarball.MultiWrite(tags, &buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func archiveDir(t testing.TB, dir string) []byte {
	t.Helper()
	b := newTar()
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		b.file("./"+rel, string(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.bytes(t)
}

func TestImportPlatforms(t *testing.T) {
	s := openStore(t)
	forArch := func(arch string) v1.Image {
		return buildImage(t, func(c *v1.ConfigFile) { c.Architecture = arch }, newTar().file("arch", arch).layer(t))
	}
	dir := writeLayout(t, "app", "1", forArch("arm64"), forArch("amd64"), forArch("s390x"))
	got, err := s.Import(t.Context(), dir, ImportOptions{Platform: "linux/s390x"})
	if err != nil || len(got) != 1 || got[0].Platform != "linux/s390x" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := s.Import(t.Context(), dir, ImportOptions{Platform: "linux/riscv64"}); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("riscv64: %v", err)
	}

	// An index in the index, as buildx makes.
	nested := filepath.Join(t.TempDir(), "nested")
	inner := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: forArch("arm64"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}})
	outer := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: inner, Descriptor: v1.Descriptor{Annotations: map[string]string{fullNameAnnotation: "docker.io/library/nested:2"}}})
	if _, err := layout.Write(nested, outer); err != nil {
		t.Fatal(err)
	}
	got, err = s.Import(t.Context(), nested, ImportOptions{Platform: "linux/arm64"})
	if err != nil || len(got) != 1 || got[0].Refs[0] != "nested:2" {
		t.Errorf("nested: %v, %v", got, err)
	}
	checkStore(t, s)
}

func TestImportSeveral(t *testing.T) {
	s := openStore(t)
	shared := newTar().file("a", "x").layer(t)
	saved := writeSaved(t, map[string]v1.Image{
		"one:1": buildImage(t, nil, shared), "two:2": buildImage(t, func(c *v1.ConfigFile) { c.Author = "x" }, shared),
	})
	file := filepath.Join(t.TempDir(), "both.tar")
	if err := os.WriteFile(file, saved, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(t.Context(), file, ImportOptions{Name: "x"}); !errors.Is(err, host.ErrInvalid) {
		t.Errorf("one name for two: %v", err)
	}
	got, err := s.Import(t.Context(), file, ImportOptions{})
	if err != nil || len(got) != 2 {
		t.Fatalf("got %v, %v", got, err)
	}
	for _, ref := range []string{"one:1", "two:2"} {
		if _, err := s.Resolve(ref); err != nil {
			t.Error(err)
		}
	}
	checkStore(t, s)
}

func TestImportErrors(t *testing.T) {
	s := openStore(t)
	img := buildImage(t, nil, newTar().file("a", "one").layer(t))
	spoiled := writeLayout(t, "spoiled", "1", img)
	missing := writeLayout(t, "missing", "1", img)
	l, _ := img.Layers()
	d, _ := l[0].Digest()
	blob := filepath.Join("blobs", "sha256", d.Hex)
	content, err := os.ReadFile(filepath.Join(spoiled, blob))
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	os.WriteFile(filepath.Join(spoiled, blob), content, 0o600)
	os.Remove(filepath.Join(missing, blob))
	outside := writeLayout(t, "outside", "1", img)
	os.Rename(filepath.Join(outside, blob), filepath.Join(outside, "..", "stray"))
	os.Symlink("../../../stray", filepath.Join(outside, blob))

	// An archive whose layer is not what the config says.
	saved := string(writeSaved(t, map[string]v1.Image{"a:1": buildImage(t, func(c *v1.ConfigFile) {
		c.RootFS.DiffIDs[0].Hex = strings.Repeat("b", 64)
	}, newTar().file("a", "one").layer(t))}))
	links := newTar().file("manifest.json", `[{"Config":"c.json","RepoTags":["a:1"],"Layers":["x"]}]`).file("c.json", `{"rootfs":{"type":"layers","diff_ids":["sha256:`+strings.Repeat("0", 64)+`"]}}`).symlink("x", "y").symlink("y", "x")
	empty := t.TempDir()
	for _, c := range []struct {
		name, file, content string
		kind                error
		says                string
	}{
		{"missing file", "/nonexistent/file", "", fs.ErrNotExist, ""},
		{"spoiled blob", spoiled, "", host.ErrCorrupt, d.String()},
		{"missing blob", missing, "", host.ErrCorrupt, d.String()},
		{"link out of the directory", outside, "", nil, d.Hex},
		{"root file system archive", "rootfs.tar", string(newTar().dir("./").dir("./etc").file("./etc/passwd", "x").bytes(t)), host.ErrInvalid, "x-torpor rootfs"},
		{"root file system", empty, "", host.ErrInvalid, "x-torpor rootfs"},
		{"no archive", "notes.txt", strings.Repeat("hello ", 1000), host.ErrInvalid, "tar archive"},
		{"empty file", "empty.tar", "", host.ErrInvalid, ""},
		{"no name", writeLayout(t, "anonymous", "", img), "", host.ErrInvalid, "has no name"},
		{"wrong content", "saved.tar", saved, host.ErrCorrupt, strings.Repeat("b", 64)},
		{"cut archive", "cut.tar", saved[:len(saved)/3], nil, ""},
		{"links in a circle", "links.tar", string(links.bytes(t)), nil, "circle"},
		{"no layer", "nolayer.tar", string(newTar().file("manifest.json", `[{"Config":"c.json","RepoTags":["a:1"],"Layers":["../../etc/passwd"]}]`).file("c.json", `{"rootfs":{"type":"layers","diff_ids":["sha256:`+strings.Repeat("0", 64)+`"]}}`).bytes(t)), host.ErrCorrupt, "not exist"},
		{"xz", "image.tar.xz", "\xfd7zXZ\x00 and so on", host.ErrUnsupported, "xz"},
	} {
		file := c.file
		if !filepath.IsAbs(file) {
			file = filepath.Join(t.TempDir(), c.file)
			if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := s.Import(t.Context(), file, ImportOptions{})
		if err == nil || c.kind != nil && !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	checkStore(t, s)
}

// TestImportOldDockerSave has layers that are links to each other, as docker
// before version 25 wrote them.
func TestImportOldDockerSave(t *testing.T) {
	s := openStore(t)
	layer := newTar().file("a", "x").bytes(t)
	diff := sha256Of(layer)
	config := `{"os":"linux","rootfs":{"type":"layers","diff_ids":["` + diff + `","` + diff + `"]}}`
	h, body := entry(tar.TypeReg, "1/layer.tar", string(layer))
	raw := newTar().add(h, body).symlink("2/layer.tar", "../1/layer.tar").file("c.json", config).
		file("manifest.json", `[{"Config":"c.json","RepoTags":["old:1"],"Layers":["1/layer.tar","2/layer.tar"]}]`).bytes(t)
	file := filepath.Join(t.TempDir(), "old.tar")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := s.Import(t.Context(), file, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(got[0].Layers) != 2 || got[0].SizeBytes != 1 || got[0].Digest != "" {
		t.Errorf("got %+v", got[0])
	}
	checkStore(t, s)
}

func FuzzArchiveTable(f *testing.F) {
	f.Add(newTar().file("manifest.json", "[]").symlink("a", "b").link("b", "a").bytes(f))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file := filepath.Join(t.TempDir(), "a.tar")
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := openArchive(t.Context(), file, t.TempDir())
		if err != nil {
			return
		}
		defer a.close()
		want, _ := ParsePlatform("")
		findImages(t.Context(), a, want, "fuzz")
	})
}

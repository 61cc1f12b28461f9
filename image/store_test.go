package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"torpor/host"
)

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		file, content string
		kind          error
		says          string
	}{
		"newer version":  {"version", "torpor image store 2\n", host.ErrInvalid, "torpor image store 2"},
		"no store":       {"letter.txt", "dear all", host.ErrInvalid, "letter.txt"},
		"corrupt index":  {"index.json", "{", host.ErrCorrupt, "index.json"},
		"future index":   {"index.json", `{"version":2,"refs":{},"holders":{}}`, host.ErrCorrupt, "version 2"},
		"unknown layer":  {"layers/x", "", host.ErrCorrupt, `"x"`},
		"unknown images": {"images/x", "", host.ErrCorrupt, `"x"`},
	} {
		dir := t.TempDir()
		if strings.Contains(c.file, "/") || c.file == "index.json" {
			openStoreIn(t, dir).Close()
		}
		if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		before := listTree(t, dir)
		s, err := Open(dir)
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(names(before), names(listTree(t, dir))); diff != "" {
			t.Errorf("%s: directory changed: %s", name, diff)
		}
	}
}

func TestOpenOnce(t *testing.T) {
	s := openStore(t)
	if _, err := Open(s.Dir()); !errors.Is(err, host.ErrRefused) {
		t.Errorf("second open: %v", err)
	}
	info, err := os.Stat(s.Dir())
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("store is open to others: %v, %v", info.Mode(), err)
	}
}

// addImage puts an image with the given layers into the store.
func addImage(t *testing.T, s *Store, reg *testRegistry, path string, layers ...v1.Layer) Image {
	t.Helper()
	ref := reg.push(t, path, buildImage(t, func(c *v1.ConfigFile) { c.Author = path }, layers...))
	img, err := s.Pull(t.Context(), ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestRemove(t *testing.T) {
	s, reg := openStore(t), newRegistryServer(t)
	shared := newTar().file("shared", "x").layer(t)
	own := newTar().file("own", "y").layer(t)
	a := addImage(t, s, reg, "a:1", shared, own)
	b := addImage(t, s, reg, "b:1", shared)

	if err := s.Remove("none", false); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	if err := s.Remove(a.Refs[0], false); err != nil {
		t.Fatal(err)
	}
	checkStore(t, s)
	if _, err := s.Resolve(string(a.ID)); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("removed image: %v", err)
	}
	if s.hasLayer(diffID(t, own)) || !s.hasLayer(diffID(t, shared)) {
		t.Error("wrong layers removed")
	}
	if err := s.Remove(string(b.ID), false); err != nil {
		t.Fatal(err)
	}
	checkStore(t, s)
	if len(s.layers) > 0 {
		t.Error("layers left:", s.layers)
	}
}

func TestRemoveOneOfTwoNames(t *testing.T) {
	s, reg := openStore(t), newRegistryServer(t)
	img := buildImage(t, nil, newTar().file("a", "x").layer(t))
	first, second := reg.push(t, "app:1", img), reg.push(t, "app:2", img)
	for _, ref := range []string{first, second} {
		if _, err := s.Pull(t.Context(), ref, PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Inspect(first)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{first, second}, got.Refs); diff != "" {
		t.Error(diff)
	}
	if err := s.Remove(string(got.ID), false); !errors.Is(err, host.ErrRefused) || !strings.Contains(err.Error(), second) {
		t.Errorf("remove by ID: %v", err)
	}
	if err := s.Remove(first, false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(first); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("first name: %v", err)
	}
	if again, err := s.Resolve(second); err != nil || again.ID != got.ID {
		t.Errorf("second name: %v", err)
	}
	checkStore(t, s)
}

// TestHolders checks that what is used stays, over a restart too, until it is released.
func TestHolders(t *testing.T) {
	s, reg := openStore(t), newRegistryServer(t)
	img := addImage(t, s, reg, "app:1", newTar().file("a", "x").layer(t))
	ref := img.Refs[0]
	if err := s.Use("sha256:"+ID(strings.Repeat("0", 64)), "svc"); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("use of nothing: %v", err)
	}
	for _, holder := range []string{"web-1", "db-1", "web-1"} {
		if err := s.Use(img.ID, holder); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	s = openStoreIn(t, s.Dir())
	if diff := cmp.Diff([]string{"db-1", "web-1"}, s.Holders(img.ID)); diff != "" {
		t.Error(diff)
	}
	for _, key := range []string{ref, string(img.ID)} {
		if err := s.Remove(key, false); !errors.Is(err, host.ErrRefused) || !strings.Contains(err.Error(), "db-1, web-1") {
			t.Errorf("remove %s: %v", key, err)
		}
	}
	if err := s.Remove(ref, true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(ref); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("name after force: %v", err)
	}
	if got, err := s.Resolve(string(img.ID)); err != nil || len(got.Refs) != 0 {
		t.Errorf("ID after force: %v, %v", got.Refs, err)
	}
	s.Close()
	s = openStoreIn(t, s.Dir()) // does not take it for rubbish
	for i, holder := range []string{"nobody", "web-1", "db-1"} {
		if _, err := s.Resolve(string(img.ID)); err != nil {
			t.Errorf("before release %d: %v", i, err)
		}
		if err := s.Release(holder); err != nil {
			t.Error(err)
		}
	}
	if l := s.List(); len(l) != 0 {
		t.Error("images left:", l)
	}
	checkStore(t, s)
}

// TestTagMoves checks that the old image of a name goes unless it is used.
func TestTagMoves(t *testing.T) {
	s, reg := openStore(t), newRegistryServer(t)
	pull := func(content string) Image {
		t.Helper()
		ref := reg.push(t, "app:1", buildImage(t, nil, newTar().file("a", content).layer(t)))
		img, err := s.Pull(t.Context(), ref, PullOptions{Policy: host.PullAlways})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	first := pull("1")
	if err := s.Use(first.ID, "svc"); err != nil {
		t.Fatal(err)
	}
	second := pull("2")
	third := pull("3")
	for id, want := range map[ID]error{first.ID: nil, second.ID: host.ErrNotFound, third.ID: nil} {
		if _, err := s.Resolve(string(id)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", id, err, want)
		}
	}
	checkStore(t, s)
	if err := s.Release("svc"); err != nil {
		t.Fatal(err)
	}
	if l := s.List(); len(l) != 1 || l[0].ID != third.ID {
		t.Errorf("left: %v", l)
	}
}

// TestDamage checks that a broken image is left out, reported, harms no other
// and is whole again after a pull.
func TestDamage(t *testing.T) {
	for name, damage := range map[string]func(s *Store, img Image) string{
		"config changed": func(s *Store, img Image) string { return filepath.Join(s.imageDir(img.ID), "config") },
		"layer record":   func(s *Store, img Image) string { return filepath.Join(s.layerDir(img.Layers[0]), layerInfoName) },
	} {
		t.Run(name, func(t *testing.T) {
			s, reg := openStore(t), newRegistryServer(t)
			bad := addImage(t, s, reg, "bad:1", newTar().file("a", "x").layer(t))
			good := addImage(t, s, reg, "good:1", newTar().file("b", "x").layer(t))
			s.Close()
			if err := os.WriteFile(damage(s, bad), []byte("rubbish"), 0o600); err != nil {
				t.Fatal(err)
			}
			s = openStoreIn(t, s.Dir())
			if d := s.Damaged(); len(d) == 0 || !errors.Is(d[0], host.ErrCorrupt) {
				t.Errorf("damaged: %v", d)
			}
			if l := s.List(); len(l) != 1 || l[0].ID != good.ID {
				t.Errorf("list: %v", l)
			}
			if _, err := s.Pull(t.Context(), bad.Refs[0], PullOptions{}); err != nil {
				t.Fatal(err)
			}
			s.Close()
			s = openStoreIn(t, s.Dir())
			if d := s.Damaged(); len(d) > 0 {
				t.Errorf("still damaged: %v", d)
			}
			if l := s.List(); len(l) != 2 {
				t.Errorf("list: %v", l)
			}
			checkStore(t, s)
		})
	}
}

func TestResolveShortID(t *testing.T) {
	s := &Store{index: newIndex(), images: map[ID]*record{}}
	for _, digits := range []string{"aaaa1", "aaaa2", "bbbb1"} {
		id := ID(digestPrefix + digits + strings.Repeat("0", 64-len(digits)))
		s.images[id] = &record{id: id, config: &configFile{}}
	}
	for ref, want := range map[string]error{
		"aaaa1": nil, "bbbb": nil, "sha256:bbbb": nil,
		"aaaa": host.ErrInvalid, "bbb": host.ErrNotFound, "cccc": host.ErrNotFound, "": host.ErrInvalid, "a b": host.ErrInvalid,
	} {
		if _, err := s.Resolve(ref); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", ref, err, want)
		}
	}
}

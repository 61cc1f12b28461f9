package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"torpor/host"
	"torpor/kernel/mount"
)

// newRootFS names directories below dir, which the mount makes.
func newRootFS(t testing.TB, dir string) RootFS {
	m := RootFS{Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"), Target: filepath.Join(dir, "rootfs")}
	t.Cleanup(func() {
		if err := Unmount(m.Target); err != nil {
			t.Error(err)
		}
	})
	return m
}

// mountImage pulls an image of the layers and mounts it.
func mountImage(t testing.TB, layers ...v1.Layer) RootFS {
	t.Helper()
	s, reg := openStore(t), newRegistryServer(t)
	ref := reg.push(t, "app:1", buildImage(t, nil, layers...))
	img, err := s.Pull(t.Context(), ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m := newRootFS(t, t.TempDir())
	if err := s.Mount(img.Layers, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// contents lists a tree: names, and what regular files hold.
func contents(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	for _, name := range names(listTree(t, dir)) {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			name += "=" + string(content)
		}
		out = append(out, name)
	}
	return out
}

func TestMountWhiteouts(t *testing.T) {
	base := func() *tarBuilder {
		return newTar().dir("./").dir("d").file("d/a", "1").file("d/b", "1").dir("e").file("e/a", "1").file("f", "1").dir("g").file("g/a", "1")
	}
	for name, c := range map[string]struct {
		top  *tarBuilder
		want []string
	}{
		"file":                     {newTar().dir("d").file("d/.wh.a", ""), []string{".", "d", "d/b=1", "e", "e/a=1", "f=1", "g", "g/a=1"}},
		"directory":                {newTar().file(".wh.d", ""), []string{".", "e", "e/a=1", "f=1", "g", "g/a=1"}},
		"opaque first":             {newTar().dir("d").file("d/.wh..wh..opq", "").file("d/c", "2"), []string{".", "d", "d/c=2", "e", "e/a=1", "f=1", "g", "g/a=1"}},
		"opaque last":              {newTar().dir("d").file("d/c", "2").file("d/.wh..wh..opq", ""), []string{".", "d", "d/c=2", "e", "e/a=1", "f=1", "g", "g/a=1"}},
		"opaque root":              {newTar().file(".wh..wh..opq", "").file("c", "2"), []string{".", "c=2"}},
		"removed and made again":   {newTar().file(".wh.d", "").dir("d").file("d/c", "2"), []string{".", "d", "d/c=2", "e", "e/a=1", "f=1", "g", "g/a=1"}},
		"made again, then removed": {newTar().dir("d").file("d/c", "2").file(".wh.d", ""), []string{".", "d", "d/c=2", "e", "e/a=1", "f=1", "g", "g/a=1"}},
		"made again without entry": {newTar().file(".wh.d", "").file("d/c", "2"), []string{".", "d", "d/c=2", "e", "e/a=1", "f=1", "g", "g/a=1"}},
		"file made again":          {newTar().file(".wh.f", "").file("f", "2"), []string{".", "d", "d/a=1", "d/b=1", "e", "e/a=1", "f=2", "g", "g/a=1"}},
		"directory becomes file":   {newTar().file("d", "2"), []string{".", "d=2", "e", "e/a=1", "f=1", "g", "g/a=1"}},
		"file becomes directory":   {newTar().dir("f").file("f/a", "2"), []string{".", "d", "d/a=1", "d/b=1", "e", "e/a=1", "f", "f/a=2", "g", "g/a=1"}},
		"marks of aufs":            {newTar().file(".wh..wh.aufs", "").dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", ""), []string{".", "d", "d/a=1", "d/b=1", "e", "e/a=1", "f=1", "g", "g/a=1"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := mountImage(t, base().layer(t), c.top.layer(t))
			if diff := cmp.Diff(c.want, contents(t, m.Target)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestMountManyLayers has more layers than names fit into a page.
func TestMountManyLayers(t *testing.T) {
	const count = 120
	var layers []v1.Layer
	want := []string{".", "common=119"}
	for i := range count {
		name := fmt.Sprintf("layer%03d", i)
		layers = append(layers, newTar().file(name, name).file("common", fmt.Sprint(i)).layer(t))
		want = append(want, name+"="+name)
	}
	m := mountImage(t, layers...)
	if diff := cmp.Diff(want, contents(t, m.Target)); diff != "" {
		t.Error(diff)
	}
}

// TestMountRepeatedLayer has a layer that occurs twice, as empty ones often do.
func TestMountRepeatedLayer(t *testing.T) {
	a := newTar().dir("d").file("d/a", "a").file(".wh.gone", "").layer(t)
	b := newTar().file("gone", "b").file("d/.wh.a", "").file("d/b", "b").layer(t)
	m := mountImage(t, a, b, a)
	if diff := cmp.Diff([]string{".", "d", "d/a=a", "d/b=b"}, contents(t, m.Target)); diff != "" {
		t.Error(diff)
	}
}

func TestMountNoLayers(t *testing.T) {
	m := mountImage(t)
	if diff := cmp.Diff([]string{"."}, contents(t, m.Target)); diff != "" {
		t.Error(diff)
	}
	info, err := os.Stat(m.Target)
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("root is %v, %v", info.Mode(), err)
	}
}

// TestMountAgain checks that what was written stays over an unmount, that the
// layers stay as they were, and how the root directory looks.
func TestMountAgain(t *testing.T) {
	s, reg := openStore(t), newRegistryServer(t)
	root, _ := entry('5', "./", "")
	root.Mode, root.Uid, root.Gid = 0o1750, 12, 34
	ref := reg.push(t, "app:1", buildImage(t, nil, newTar().add(root, "").file("a", "1").file("b", "1").layer(t), newTar().file("c", "1").layer(t)))
	img, err := s.Pull(t.Context(), ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before := listTree(t, s.layersDir())
	m := newRootFS(t, t.TempDir())
	for i := range 3 {
		if err := s.Mount(img.Layers, m); err != nil {
			t.Fatal(err)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(m.Target, &st); err != nil || st.Mode&0o7777 != 0o1750 || st.Uid != 12 || st.Gid != 34 {
			t.Errorf("root directory: %o %d:%d, %v", st.Mode, st.Uid, st.Gid, err)
		}
		if i == 0 {
			os.WriteFile(filepath.Join(m.Target, "a"), []byte("2"), 0o600)
			os.Remove(filepath.Join(m.Target, "b"))
		}
		if diff := cmp.Diff([]string{".", "a=2", "c=1"}, contents(t, m.Target)); diff != "" {
			t.Error(i, diff)
		}
		if err := Unmount(m.Target); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, listTree(t, s.layersDir())); diff != "" {
		t.Error("layers changed:", diff)
	}
}

// TestMountDirAroundUpper has the writable directory below the base.
func TestMountDirAroundUpper(t *testing.T) {
	requireRoot(t)
	base := t.TempDir()
	for _, name := range []string{"etc", "var/lib/state/secret", "mnt"} {
		if err := os.MkdirAll(filepath.Join(base, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(base, "etc/conf"), []byte("1"), 0o640)
	os.Chmod(filepath.Join(base, "var/lib"), 0o711)
	if err := mount.Tmpfs(filepath.Join(base, "mnt"), 0, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mount.Unmount(filepath.Join(base, "mnt")) })
	os.WriteFile(filepath.Join(base, "mnt/inside"), nil, 0o600)

	m := newRootFS(t, filepath.Join(base, "var/lib/state/svc"))
	hidden := []string{filepath.Join(base, "var/lib/state"), "/elsewhere", os.TempDir(), base + "/none"}
	for i := range 2 {
		if err := MountDir(base, hidden, m); err != nil {
			t.Fatal(err)
		}
		conf := "etc/conf=1"
		if i == 1 {
			conf = "etc/conf=2"
		}
		if diff := cmp.Diff([]string{".", "etc", conf, "mnt", "var", "var/lib"}, contents(t, m.Target)); diff != "" {
			t.Error(diff)
		}
		info, err := os.Stat(filepath.Join(m.Target, "var/lib"))
		if err != nil || info.Mode().Perm() != 0o711 {
			t.Errorf("parent of a hidden path: %v, %v", info.Mode(), err)
		}
		if err := os.WriteFile(filepath.Join(m.Target, "etc/conf"), []byte("2"), 0o640); err != nil {
			t.Error(err)
		}
		if err := Unmount(m.Target); err != nil {
			t.Fatal(err)
		}
		if mounted, err := mount.Mounted(m.Target); mounted || err != nil {
			t.Errorf("still mounted: %v, %v", mounted, err)
		}
	}
	if content, _ := os.ReadFile(filepath.Join(base, "etc/conf")); string(content) != "1" {
		t.Errorf("base was changed: %q", content)
	}
	if n := strings.Count(mountInfo(t), base); n != 1 {
		t.Errorf("%d mounts below the base, want its tmpfs:\n%s", n, mountInfo(t))
	}
}

func mountInfo(t testing.TB) string {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestMountDirRoot runs the host's own programs on a private copy of "/".
func TestMountDirRoot(t *testing.T) {
	requireRoot(t)
	state := t.TempDir()
	m := newRootFS(t, state)
	if err := MountDir("/", []string{state}, m); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etc/passwd", "bin/sh"} {
		if _, err := os.Stat(filepath.Join(m.Target, name)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(m.Target, state)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("state shows: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Join(m.Target, "proc")); len(entries) > 0 || err != nil {
		t.Errorf("proc has %d entries, %v", len(entries), err)
	}
	name := fmt.Sprintf("torpor-image-test-%d", os.Getpid())
	if err := os.WriteFile(filepath.Join(m.Target, "etc", name), nil, 0o600); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/etc/" + name); err == nil {
		t.Error("write went through to the host")
		os.Remove("/etc/" + name)
	}
	// What the container makes of a hidden name is its own and stays.
	if err := os.MkdirAll(filepath.Join(m.Target, state, "own"), 0o755); err != nil {
		t.Error(err)
	}
	if err := Unmount(m.Target); err != nil {
		t.Fatal(err)
	}
	if err := MountDir("/", []string{state}, m); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Join(m.Target, state)); len(entries) != 1 || err != nil {
		t.Errorf("own directory holds %v, %v", entries, err)
	}
}

func TestMountErrors(t *testing.T) {
	s := openStore(t)
	m := newRootFS(t, t.TempDir())
	if err := s.Mount([]LayerID{"sha256:" + LayerID(strings.Repeat("0", 64))}, m); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("missing layer: %v", err)
	}
	if err := MountDir("/nonexistent", nil, m); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing base: %v", err)
	}
	if err := MountDir("/etc/passwd", nil, m); !errors.Is(err, host.ErrInvalid) {
		t.Errorf("base is a file: %v", err)
	}
	relative := m
	relative.Upper = "upper"
	if err := MountDir("/", nil, relative); !errors.Is(err, host.ErrInvalid) {
		t.Errorf("relative path: %v", err)
	}
	inside := m
	inside.Upper = t.TempDir()
	if err := os.Mkdir(inside.Upper+"/base", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := MountDir(inside.Upper+"/base", nil, inside); !errors.Is(err, host.ErrInvalid) || !strings.Contains(err.Error(), inside.Upper) {
		t.Errorf("base inside the writable directory: %v", err)
	}
	if err := Unmount(m.Target + "/nothing"); err != nil {
		t.Error(err)
	}
	if strings.Contains(mountInfo(t), m.Target) {
		t.Error("a mount was left")
	}
}

func TestUnmountBusy(t *testing.T) {
	m := mountImage(t, newTar().file("a", "1").layer(t))
	f, err := os.Open(filepath.Join(m.Target, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Unmount(m.Target); err != nil {
		t.Fatal(err)
	}
	if mounted, _ := mount.Mounted(m.Target); mounted {
		t.Error("still mounted")
	}
	if err := Unmount(m.Target); err != nil {
		t.Errorf("second time: %v", err)
	}
}

func TestLowerDirs(t *testing.T) {
	id := func(n int) LayerID { return LayerID(fmt.Sprintf("sha256:%064d", n)) }
	s := &Store{dir: "/s", layers: map[LayerID]layerInfo{id(1): {RootEntry: true}, id(2): {}, id(3): {OpaqueRoot: true}}}
	for _, c := range []struct{ in, want []int }{
		{[]int{1, 2}, []int{2, 1}}, {[]int{1, 2, 1}, []int{1, 2}}, {[]int{1, 3, 2}, []int{2, 3}}, {[]int{2, 2, 2}, []int{2}},
	} {
		var in []LayerID
		for _, n := range c.in {
			in = append(in, id(n))
		}
		var want []string
		for _, n := range c.want {
			want = append(want, s.layerTree(id(n)))
		}
		got, _, err := s.lowerDirs(in)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%v: %v, %v", c.in, got, err)
		}
	}
}

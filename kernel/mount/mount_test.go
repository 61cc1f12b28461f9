package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ownNamespace gives the test a mount namespace that ends with its thread, so
// that nothing it mounts is left or seen by others.
func ownNamespace(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatalf("unshare mount namespace: %v", err)
	}
	if err := Private("/"); err != nil {
		t.Fatal(err)
	}
}

// dirs makes directories below a temporary one and returns their paths.
func dirs(t *testing.T, names ...string) []string {
	t.Helper()
	base := t.TempDir()
	var out []string
	for _, n := range names {
		d := filepath.Join(base, n)
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		out = append(out, d)
	}
	return out
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Fatalf("%s holds %q, want %q", path, got, want)
	}
}

func wantMounted(t *testing.T, target string, want bool) {
	t.Helper()
	got, err := Mounted(target)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Fatalf("%s mounted: %v, want %v", target, got, want)
	}
}

func TestBindReadOnly(t *testing.T) {
	ownNamespace(t)
	d := dirs(t, "source", "target")
	write(t, d[0]+"/file", "a")
	if err := Bind(d[0], d[1], BindOptions{ReadOnly: true, NoDev: true}); err != nil {
		t.Fatal(err)
	}
	wantMounted(t, d[1], true)
	wantContent(t, d[1]+"/file", "a")
	if err := os.WriteFile(d[1]+"/new", nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Fatalf("write into read-only bind: %v, want EROFS", err)
	}
	write(t, d[0]+"/file", "b") // the source stays writable
	if err := Unmount(d[1]); err != nil {
		t.Fatal(err)
	}
	wantMounted(t, d[1], false)
	if err := Unmount(d[1]); !errors.Is(err, unix.EINVAL) {
		t.Fatalf("unmount what is not mounted: %v, want EINVAL", err)
	}
}

func TestBindRecursiveIsReadOnlyBelow(t *testing.T) {
	ownNamespace(t)
	d := dirs(t, "source/sub", "target")
	source := filepath.Dir(d[0])
	if err := Tmpfs(d[0], 1<<20, 0o755); err != nil {
		t.Fatal(err)
	}
	defer Detach(d[0])
	write(t, d[0]+"/file", "a")
	if err := Bind(source, d[1], BindOptions{Recursive: true, ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	defer Detach(d[1])
	wantContent(t, d[1]+"/sub/file", "a")
	if err := os.WriteFile(d[1]+"/sub/new", nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Fatalf("write below read-only bind: %v, want EROFS", err)
	}
}

// Overlays of 120 layers mount, by descriptor and by name, with long paths and
// with characters that an option string would need escaped.
func TestOverlayOfManyLayers(t *testing.T) {
	for name, add := range map[string]func(*layers, string, string) error{
		"descriptor": (*layers).byDescriptor,
		"name":       (*layers).byName,
	} {
		t.Run(name, func(t *testing.T) {
			ownNamespace(t)
			long := strings.Repeat("long/", 60) + "a:b,c\\d"
			names := []string{"upper", "work", "target"}
			for i := range 120 {
				names = append(names, fmt.Sprintf("%s/%d", long, i))
			}
			d := dirs(t, names...)
			lower := d[3:]
			for i, dir := range lower {
				write(t, dir+"/shared", fmt.Sprint(i))
				write(t, fmt.Sprintf("%s/only%d", dir, i), fmt.Sprint(i))
			}
			fd, err := Overlay{Lower: lower, Upper: d[0], Work: d[1]}.create(add)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := attach(fd, d[2]); err != nil {
				t.Fatal(err)
			}
			defer Detach(d[2])
			wantContent(t, d[2]+"/shared", "0")
			wantContent(t, d[2]+"/only119", "119")
			write(t, d[2]+"/shared", "changed")
			wantContent(t, d[0]+"/shared", "changed")
			wantContent(t, lower[0]+"/shared", "0")
		})
	}
}

// The root of the host can be the lower directory of an overlay whose upper
// directory lies in it. What is mounted below the root does not show.
func TestOverlayOfTheRoot(t *testing.T) {
	ownNamespace(t)
	base, err := os.MkdirTemp("/var/lib", "torpor-mount-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	upper, work, target := base+"/upper", base+"/work", base+"/target"
	for _, d := range []string{upper, work, target} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := (Overlay{Lower: []string{"/"}, Upper: upper, Work: work}).Mount(target); err != nil {
		t.Fatal(err)
	}
	defer Detach(target)
	if entries, err := os.ReadDir(target + "/proc"); err != nil || len(entries) != 0 {
		t.Fatalf("proc of the overlay has %d entries (%v), want none", len(entries), err)
	}
	if _, err := os.Stat(target + "/etc/passwd"); err != nil {
		t.Fatal(err)
	}
	name := "/etc/" + filepath.Base(base)
	write(t, target+name, "private")
	wantContent(t, upper+name, "private")
	if _, err := os.Stat(name); !errors.Is(err, unix.ENOENT) {
		t.Fatalf("file written to the overlay shows on the host: %v", err)
	}
}

func TestOverlayErrors(t *testing.T) {
	ownNamespace(t)
	d := dirs(t, "lower", "upper", "work", "target")
	tooMany := make([]string, MaxLower+1)
	for i := range tooMany {
		tooMany[i] = d[0]
	}
	for _, tc := range []struct {
		name    string
		overlay Overlay
		want    error
	}{
		{"missing layer", Overlay{Lower: []string{d[0] + "/none"}, Upper: d[1], Work: d[2]}, unix.ENOENT},
		{"too many layers", Overlay{Lower: tooMany, Upper: d[1], Work: d[2]}, unix.E2BIG},
		{"work below upper", Overlay{Lower: d[:1], Upper: d[1], Work: d[1]}, unix.EINVAL},
	} {
		err := tc.overlay.Mount(d[3])
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		wantMounted(t, d[3], false)
	}
}

package mount

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"torpor/host"
)

// Names that an option string would not survive.
func TestOverlayOfOddNames(t *testing.T) {
	for name, add := range map[string]func(*layers, string, string) error{
		"descriptor": (*layers).byDescriptor,
		"name":       (*layers).byName,
	} {
		t.Run(name, func(t *testing.T) {
			ownNamespace(t)
			odd := "co,m:ma\\ =\n"
			d := dirs(t, odd+"/a", odd+"/b", odd+"/upper", odd+"/work", odd+"/target")
			write(t, d[0]+"/a", "1")
			write(t, d[1]+"/b", "2")
			fd, err := Overlay{Lower: d[:2], Upper: d[2], Work: d[3]}.create(add)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := attach(fd, d[4]); err != nil {
				t.Fatal(err)
			}
			defer Detach(d[4])
			wantContent(t, d[4]+"/a", "1")
			wantContent(t, d[4]+"/b", "2")
		})
	}
}

// Which directories may hold each other is the kernel's word; root file
// systems of a host directory depend on the first case.
func TestOverlayOverlaps(t *testing.T) {
	ownNamespace(t)
	d := dirs(t, "lower/upper", "lower/work", "outer/lower", "outer2", "target")
	lower, outer := d[0][:len(d[0])-len("/upper")], d[2][:len(d[2])-len("/lower")]
	for _, tc := range []struct {
		name    string
		overlay Overlay
		want    error
	}{
		{"lower holds upper", Overlay{Lower: []string{lower}, Upper: d[0], Work: d[1]}, nil},
		{"upper holds lower", Overlay{Lower: []string{d[2]}, Upper: outer, Work: d[3]}, unix.ELOOP},
		{"lower holds lower", Overlay{Lower: []string{outer, d[2]}, Upper: d[0], Work: d[1]}, unix.ELOOP},
		{"lower twice", Overlay{Lower: []string{outer, outer}, Upper: d[0], Work: d[1]}, unix.ELOOP},
	} {
		err := tc.overlay.Mount(d[4])
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		wantMounted(t, d[4], tc.want == nil)
		if err == nil {
			if err := Unmount(d[4]); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestBindOfAFile(t *testing.T) {
	ownNamespace(t)
	d := dirs(t, "d")
	write(t, d[0]+"/a", "a")
	write(t, d[0]+"/b", "b")
	if err := Bind(d[0]+"/a", d[0]+"/b", BindOptions{}); err != nil {
		t.Fatal(err)
	}
	wantContent(t, d[0]+"/b", "a")
	if err := Unmount(d[0] + "/b"); err != nil {
		t.Fatal(err)
	}
	wantContent(t, d[0]+"/b", "b")
	if err := Unmount(d[0]); !errors.Is(err, unix.EINVAL) {
		t.Errorf("unmount of no mount: %v", err)
	}
}

func TestMounted(t *testing.T) {
	ownNamespace(t)
	for path, want := range map[string]bool{"/": true, "/proc": true, t.TempDir(): false, "/nonexistent": false} {
		if got, err := Mounted(path); got != want || err != nil {
			t.Errorf("%s: %v, %v", path, got, err)
		}
	}
	if _, err := newContext("torpor-none"); !errors.Is(err, host.ErrKernel) {
		t.Errorf("unknown file system: %v", err)
	}
}

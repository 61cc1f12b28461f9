package netns

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"torpor/internal/kerneltest"
)

func TestVisitor(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS)
	path := filepath.Join(t.TempDir(), "ns")
	if err := Ensure(path); err != nil {
		t.Fatal(err)
	}
	v, err := NewVisitor(path)
	if err != nil {
		t.Fatal(err)
	}
	var want string
	err = Do(path, func() (err error) { want, err = os.Readlink("/proc/thread-self/ns/net"); return err })
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	mine := errors.New("mine")
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			for range 50 {
				err := v.Do(func() error {
					if got, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || got != want {
						t.Errorf("in %s, want %s: %v", got, want, err)
					}
					return mine
				})
				if !errors.Is(err, mine) {
					t.Errorf("got %v", err)
				}
				if got, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || got != home {
					t.Errorf("back in %s, was in %s: %v", got, home, err)
				}
			}
		})
	}
	wait.Wait()
	if err := errors.Join(v.Close(), Remove(path)); err != nil {
		t.Error(err)
	}
	if _, err := NewVisitor(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("visitor of what is gone: %v", err)
	}
}

func BenchmarkDo(b *testing.B) {
	kerneltest.Require(b, kerneltest.Root, kerneltest.NetNS)
	v, err := NewVisitor("/proc/self/ns/net")
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	nothing := func() error { return nil }
	for name, do := range map[string]func() error{
		"new thread": func() error { return Do("/proc/self/ns/net", nothing) },
		"visitor":    func() error { return v.Do(nothing) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

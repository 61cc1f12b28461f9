package netns

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"torpor/internal/kerneltest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func TestLife(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS)
	path := filepath.Join(t.TempDir(), "below", "ns")
	t.Cleanup(func() {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	})
	for range 2 { // again changes nothing
		if err := Ensure(path); err != nil {
			t.Fatal(err)
		}
	}
	if there, err := Exists(path); err != nil || !there {
		t.Fatalf("exists: %v, %v", there, err)
	}
	mine, err := os.Readlink("/proc/thread-self/ns/net")
	leader, leaderErr := os.Readlink("/proc/self/ns/net")
	if err := errors.Join(err, leaderErr); err != nil {
		t.Fatal(err)
	}
	err = Do(path, func() error {
		theirs, err := os.Readlink("/proc/thread-self/ns/net")
		if theirs == mine {
			t.Errorf("code runs in the caller's namespace %s", theirs)
		}
		devices, deviceErr := net.Interfaces()
		if len(devices) != 1 || devices[0].Name != "lo" {
			t.Errorf("devices of a new namespace: %v", devices)
		}
		return errors.Join(err, deviceErr)
	})
	if err != nil {
		t.Fatal(err)
	}
	if now, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || now != mine {
		t.Errorf("afterwards in %s, was in %s: %v", now, mine, err)
	}
	for range 20 { // whichever thread they get
		if err := Do(path, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if now, err := os.Readlink("/proc/self/ns/net"); err != nil || now != leader {
		t.Errorf("the first thread was in %s and is in %s: %v", leader, now, err)
	}
	for range 2 {
		if err := Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if there, err := Exists(path); err != nil || there {
		t.Errorf("exists after removal: %v, %v", there, err)
	}
}

// TestPlainFile is what a reboot leaves where the directory is on a disk.
func TestPlainFile(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS)
	path := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if there, err := Exists(path); err != nil || there {
		t.Fatalf("a plain file is a namespace: %v, %v", there, err)
	}
	if err := Ensure(path); err != nil {
		t.Fatal(err)
	}
	if there, err := Exists(path); err != nil || !there {
		t.Errorf("exists: %v, %v", there, err)
	}
	if err := Remove(path); err != nil {
		t.Error(err)
	}
	if err := Do(path, func() error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("enter a removed namespace: %v", err)
	}
}

func TestDoPassesErrors(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS)
	want := errors.New("mine")
	if err := Do("/proc/self/ns/net", func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
}

package openfile

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"torpor/internal/kerneltest"
)

// TestRegistered registers two files under one number.
func TestRegistered(t *testing.T) {
	kerneltest.Require(t, kerneltest.Kernel("4.13"))
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(set)
	var files [3]int // the last is not registered
	for i := range files {
		if files[i], err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(files[i])
	}
	number, err := unix.FcntlInt(uintptr(set), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range files[:2] {
		if err := unix.Dup3(fd, number, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		if err := unix.EpollCtl(set, unix.EPOLL_CTL_ADD, number, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Close(number); err != nil {
		t.Fatal(err)
	}
	found := map[int]int{}
	for nth := range 2 {
		for i, fd := range files {
			same, err := Registered(set, number, nth, fd)
			if err != nil {
				t.Fatal(err)
			}
			if same {
				found[i]++
			}
		}
	}
	if len(found) != 2 || found[0] != 1 || found[1] != 1 {
		t.Errorf("found %v, want the first two once each", found)
	}
	if _, err := Registered(set, number, 2, files[0]); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a third registration: %v, want ENOENT", err)
	}
}

package epoll

import (
	"errors"
	"os"
	"testing"
)

func TestWaitOutlivesTheNumber(t *testing.T) {
	set, err := NewSet()
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := set.Add(int(r.Fd()), 7); err != nil {
		t.Fatal(err)
	}
	got := make(chan int32)
	go func() {
		key, err := set.Wait()
		if err != nil {
			t.Error(err)
		}
		got <- key
	}()
	if _, err := w.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if key := <-got; key != 7 {
		t.Errorf("key is %d, want 7", key)
	}
}

func TestCloseEndsWait(t *testing.T) {
	set, err := NewSet()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := set.Wait()
		done <- err
	}()
	set.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("wait ended with %v, want %v", err, os.ErrClosed)
	}
}

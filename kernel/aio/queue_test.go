package aio_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"torpor/block"
	"torpor/kernel/aio"
)

const fileBytes = 1 << 20

// newFile makes a file of noise that is open for direct I/O.
func newFile(t *testing.T) (*os.File, []byte) {
	path := filepath.Join(t.TempDir(), "file")
	content := make([]byte, fileBytes)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, content
}

func newQueue(t *testing.T, requests int) *aio.Queue {
	q, err := aio.NewQueue(requests)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// submit submits until there is a place.
func submit(t *testing.T, q *aio.Queue, r aio.Request) {
	for {
		err := q.Submit(r)
		if err == nil {
			return
		}
		if err != syscall.EAGAIN {
			t.Error(err)
			return
		}
		runtime.Gosched()
	}
}

// TestQueue has goroutines read and write by a queue that is too small for them,
// while memory is collected.
func TestQueue(t *testing.T) {
	f, content := newFile(t)
	q := newQueue(t, 8)
	var all, ended sync.WaitGroup
	for part := range 16 {
		all.Go(func() {
			for i := range 100 {
				off := part*(fileBytes/16) + i%8*8192
				vector := [][]byte{block.AlignedBuffer(4096), block.AlignedBuffer(4096)}
				write := i%3 == 0
				if write {
					copy(vector[0], content[off:])
					copy(vector[1], content[off+4096:])
				}
				ended.Add(1)
				submit(t, q, aio.Request{FD: int(f.Fd()), Write: write, Durable: write && i%2 == 0, Memory: vector, Offset: int64(off), Done: func(n int, err error) {
					defer ended.Done()
					if err != nil || n != 8192 || !bytes.Equal(bytes.Join(vector, nil), content[off:off+8192]) {
						t.Errorf("write %v at %d: %d, %v", write, off, n, err)
					}
				}})
				if i%10 == 0 {
					runtime.GC()
				}
			}
		})
	}
	all.Wait()
	ended.Wait()
	if err := q.Close(); err != nil {
		t.Error(err)
	}
	if err := q.Submit(aio.Request{FD: int(f.Fd()), Memory: [][]byte{make([]byte, 1)}}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("submit to a closed queue: %v", err)
	}
	if err := q.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("close again: %v", err)
	}
}

// TestErrors submits what the kernel refuses, at once and later.
func TestErrors(t *testing.T) {
	f, _ := newFile(t)
	q := newQueue(t, 2)
	if err := q.Submit(aio.Request{FD: -1, Memory: [][]byte{block.AlignedBuffer(4096)}}); err != syscall.EBADF {
		t.Errorf("submit for no file: %v", err)
	}
	result := make(chan error, 1)
	unaligned := block.AlignedBuffer(8192)[1:4097]
	err := q.Submit(aio.Request{FD: int(f.Fd()), Memory: [][]byte{unaligned}, Done: func(n int, err error) { result <- err }})
	if err == nil {
		err = <-result
	}
	if err != syscall.EINVAL {
		t.Errorf("read to unaligned memory: %v", err)
	}
	n := make(chan int, 1)
	submit(t, q, aio.Request{FD: int(f.Fd()), Memory: [][]byte{block.AlignedBuffer(8192)}, Offset: fileBytes - 4096, Done: func(read int, err error) { n <- read }})
	if read := <-n; read != 4096 {
		t.Errorf("read %d bytes of the last 4096", read)
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

// TestBusy closes a queue with a request that has not ended.
func TestBusy(t *testing.T) {
	f, _ := newFile(t)
	q := newQueue(t, 4)
	entered, leave := make(chan struct{}), make(chan struct{})
	submit(t, q, aio.Request{FD: int(f.Fd()), Memory: [][]byte{block.AlignedBuffer(4096)}, Done: func(int, error) {
		close(entered)
		<-leave
	}})
	<-entered
	done := make(chan struct{})
	submit(t, q, aio.Request{FD: int(f.Fd()), Memory: [][]byte{block.AlignedBuffer(4096)}, Done: func(int, error) { close(done) }})
	if err := q.Close(); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("close with a request under way: %v", err)
	}
	close(leave)
	<-done
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

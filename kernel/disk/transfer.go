package disk

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"torpor/kernel/aio"
)

// maxVector is IOV_MAX of Linux.
const maxVector = 1024

// ReadAt fills p from an offset. Errors: io.ErrUnexpectedEOF if the file ends
// before.
func (f *File) ReadAt(p [][]byte, off int64) error {
	err := transfer(p, off, func(p [][]byte, off int64) (int, error) {
		if len(p) == 1 {
			return unix.Pread(f.fd, p[0], off)
		}
		return unix.Preadv(f.fd, p, off)
	})
	if err != nil {
		return fmt.Errorf("read %s at %d: %w", f.path, off, err)
	}
	return nil
}

// StartRead is ReadAt of one buffer that calls done instead of being waited for.
// It goes by a queue if that is not nil, I/O is direct, and the kernel need not
// wait to begin; else by a goroutine. done may be called before StartRead returns,
// and must not block. p is in use until then.
func (f *File) StartRead(q *aio.Queue, p []byte, off int64, done func(error)) {
	wait := func() { done(f.ReadAt([][]byte{p}, off)) }
	if q == nil || !f.direct {
		go wait()
		return
	}
	err := q.Submit(aio.Request{FD: f.fd, Memory: [][]byte{p}, Offset: off, NoWait: true, Done: func(n int, err error) {
		if err == nil && n == len(p) {
			done(nil)
			return
		}
		go wait() // which does the rest, and says what is wrong
	}})
	if err != nil {
		go wait()
	}
}

// WriteAt writes p to an offset.
func (f *File) WriteAt(p [][]byte, off int64) error {
	err := transfer(p, off, func(p [][]byte, off int64) (int, error) {
		if len(p) == 1 {
			return unix.Pwrite(f.fd, p[0], off)
		}
		return unix.Pwritev(f.fd, p, off)
	})
	if err != nil {
		return fmt.Errorf("write %s at %d: %w", f.path, off, err)
	}
	return nil
}

// StartWrite is WriteAt, or WriteDurablyAt, that calls done instead of being waited
// for. It goes by a queue if that is not nil and the file is a block device with
// direct I/O: file systems may wait when a write begins. done may be called before
// StartWrite returns, and must not block. p is in use until then. The kernel makes a
// block durable once by this, and twice by WriteDurablyAt.
func (f *File) StartWrite(q *aio.Queue, p [][]byte, off int64, durable bool, done func(error)) {
	wait := func() {
		if durable {
			done(f.WriteDurablyAt(p, off))
			return
		}
		done(f.WriteAt(p, off))
	}
	if q == nil || !f.direct || !f.blockDevice || len(p) > maxVector || durable && f.noDSync.Load() {
		go wait()
		return
	}
	want := 0
	for _, b := range p {
		want += len(b)
	}
	err := q.Submit(aio.Request{FD: f.fd, Write: true, Durable: durable, Memory: p, Offset: off, NoWait: true, Done: func(n int, err error) {
		switch {
		case err == nil && n == want:
			done(nil)
		case err == nil || err == unix.EAGAIN || err == unix.EOPNOTSUPP:
			go wait() // which does all of it again
		default:
			done(fmt.Errorf("write %s at %d: %w", f.path, off, err))
		}
	}})
	if err != nil {
		go wait()
	}
}

// WriteDurablyAt is WriteAt of what is durable when it returns (RWF_DSYNC,
// Linux 4.7; elsewhere followed by Sync). An error may be one of writing back
// what was written before, which Sync will not tell again.
func (f *File) WriteDurablyAt(p [][]byte, off int64) error {
	if f.noDSync.Load() {
		return f.writeAndSync(p, off)
	}
	err := transfer(p, off, func(p [][]byte, off int64) (int, error) {
		return unix.Pwritev2(f.fd, p, off, unix.RWF_DSYNC)
	})
	switch err {
	case nil:
		return nil
	case unix.EOPNOTSUPP, unix.ENOSYS:
		f.noDSync.Store(true)
		return f.writeAndSync(p, off)
	}
	return fmt.Errorf("write %s at %d durably: %w", f.path, off, err)
}

func (f *File) writeAndSync(p [][]byte, off int64) error {
	if err := f.WriteAt(p, off); err != nil {
		return err
	}
	return f.Sync()
}

// transfer calls do, which reads or writes the beginning of a vector, until all
// is done. p itself is not changed.
func transfer(p [][]byte, off int64, do func(p [][]byte, off int64) (int, error)) error {
	for {
		p = skip(p, 0)
		if len(p) == 0 {
			return nil
		}
		n, err := do(p[:min(len(p), maxVector)], off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		p, off = skip(p, n), off+int64(n)
	}
}

// skip returns p without its first n bytes and without empty buffers in front.
func skip(p [][]byte, n int) [][]byte {
	for len(p) > 0 && n >= len(p[0]) {
		n -= len(p[0])
		p = p[1:]
	}
	if n > 0 {
		p = append([][]byte{p[0][n:]}, p[1:]...)
	}
	return p
}

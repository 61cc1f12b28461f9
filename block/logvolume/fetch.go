package logvolume

import (
	"fmt"
	"time"

	"torpor/block"
	"torpor/block/logvolume/format"
)

// fetch is a read of a disk into memory of its own, which goes back when the disk
// has answered, or when whoever got it puts it back.
type fetch struct {
	request
	b     []byte
	began time.Time
	late  func(*fetch) // may give it up when it is late; may be nil
	end   func(b []byte, err error)
}

// fetch begins a read of n bytes. Its end gets what was read, or an error.
func (l *Log) fetch(d *disk, off int64, n int, late func(*fetch), end func(b []byte, err error)) {
	f := &fetch{request: request{log: l, disk: d}, b: l.buffers.get(n), began: time.Now(), late: late, end: end}
	f.of = f
	f.begun()
	block.StartRead(d.device, f.b, block.Offset(off), f.answered)
}

func (f *fetch) ended(err error) {
	f.disk.tookRead(time.Since(f.began), len(f.b), err)
	if err != nil {
		f.log.buffers.put(f.b)
		f.end(nil, fmt.Errorf("read disk %s: %w", f.disk.name, err))
		return
	}
	f.end(f.b, nil)
}

func (f *fetch) impatient() {
	if f.late != nil {
		f.late(f)
	}
}

// giveUp makes the disk one that others are asked instead of, until it answers.
func (f *fetch) giveUp() bool {
	if !f.request.giveUp() {
		return false
	}
	f.disk.overdue.Add(1)
	return true
}

func (f *fetch) left() {
	f.disk.overdue.Add(-1)
	f.log.buffers.put(f.b)
}

// fail gives a fetch up and tells its end that it was late.
func (f *fetch) fail() {
	if f.giveUp() {
		f.end(nil, errLate)
	}
}

func (f *fetch) hopeless() {
	f.log.putOutLate(f.disk)
	f.fail()
}

// readSome reads blocks of a disk, with all patience.
func (l *Log) readSome(d *disk, off int64, blocks int) (b []byte, err error) {
	err = block.Wait(func(done func(error)) {
		l.fetch(d, off, blocks*format.BlockBytes, nil, func(read []byte, err error) {
			b = read
			done(err)
		})
	})
	return b, err
}

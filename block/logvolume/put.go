package logvolume

import (
	"fmt"

	"torpor/block"
)

// put is a write to a disk. After errLate its memory is still being written.
type put struct {
	request
	lenBytes int
	flags    block.Flags
	done     func(error)
}

// startWrite begins a write.
func (l *Log) startWrite(d *disk, p [][]byte, off int64, flags block.Flags, done func(error)) {
	w := &put{request: request{log: l, disk: d}, flags: flags, done: done}
	for _, b := range p {
		w.lenBytes += len(b)
	}
	w.of = w
	w.begun()
	block.StartWrite(d.device, p, block.Offset(off), flags, w.answered)
}

func (w *put) ended(err error) {
	if err != nil {
		w.disk.writeErrors.Add(1)
		w.done(fmt.Errorf("write disk %s: %w", w.disk.name, err))
		return
	}
	if w.flags&block.FUA == 0 {
		w.disk.dirty.Store(true)
	}
	w.disk.writtenBytes.Add(int64(w.lenBytes))
	w.done(nil)
}

func (w *put) impatient() {}
func (w *put) left()      {}

func (w *put) hopeless() {
	if w.giveUp() {
		w.ended(errLate)
	}
}

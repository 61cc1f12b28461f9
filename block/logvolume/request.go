package logvolume

import "sync/atomic"

// request is one to a disk that nobody waits for. It ends once: with the disk's
// answer, or before that, when it is given up.
type request struct {
	log     *Log
	disk    *disk
	tick    int64 // of the watch, when it began
	hurried bool  // impatient was called; the watch's
	claimed atomic.Bool
	of      interface {
		// impatient is called once when it takes longer than reads of the disk usually
		// do. It may give up.
		impatient()
		// ended is called once. Like impatient it must not wait for other requests: the
		// goroutine that calls it is needed for them.
		ended(err error)
		// left is called when the disk has answered what was given up.
		left()
		// hopeless is called once when the disk has not answered in time.
		hopeless()
	}
}

// begun has the watch look after a request.
func (r *request) begun() {
	r.disk.pending.Add(1)
	r.log.watch.add(r)
}

// answered is called when the disk has done what was asked, or failed.
func (r *request) answered(err error) {
	r.log.watch.remove(r)
	r.disk.pending.Add(-1)
	if r.claimed.CompareAndSwap(false, true) {
		r.of.ended(err)
		return
	}
	r.of.left()
}

// giveUp leaves a request to itself. It is false if the disk has answered.
func (r *request) giveUp() bool { return r.claimed.CompareAndSwap(false, true) }

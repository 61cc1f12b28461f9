package logvolume

// runSyncer syncs rows now and then that nobody flushes: what is not known to be
// durable a recovery reads whole, which took 2 of 9 s after 5.4 GB of random writes.
func (l *Log) runSyncer() {
	defer l.workers.Done()
	for {
		select {
		case <-l.stop:
			return
		case <-l.syncKick:
		}
		l.mu.Lock()
		// A flush under way does it, or one is due again soon.
		if !l.flushing && l.failed == nil {
			l.flushing = true
			err := l.conclude(l.disks, l.durable)
			l.flushing = false
			if err != nil {
				l.failLocked(err)
			}
			l.progress.Broadcast()
		}
		l.mu.Unlock()
	}
}

// signal wakes whoever waits for a channel, or is about to.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

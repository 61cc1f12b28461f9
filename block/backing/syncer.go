package backing

import (
	"sync"
	"sync/atomic"
)

// syncer lets flushes share what they wait for, and keeps the first error. The
// kernel tells one caller of a failed write-back, so nobody may answer "durable"
// while another one may be about to learn of a failure.
type syncer struct {
	mu      sync.RWMutex
	started atomic.Uint64 // flushes; changed with mu held

	failure struct {
		sync.Mutex
		err error
	}
}

// flush calls do, or waits for a call that another flush started after this one
// was called.
func (s *syncer) flush(do func() error) error {
	before := s.started.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.keep(nil); err != nil || s.started.Load() > before {
		return err
	}
	s.started.Add(1)
	return s.keep(do())
}

// write calls do, which writes and makes that durable, and keeps errors that
// tell of a loss. If alone it does so while no other one does: through the page
// cache another's do might be told of this one's failure. After an error that
// is kept it fails.
func (s *syncer) write(alone bool, do func() error) error {
	if alone {
		s.mu.Lock()
		defer s.mu.Unlock()
	} else {
		s.mu.RLock()
		defer s.mu.RUnlock()
	}
	if err := do(); err != nil {
		return err
	}
	return s.keep(nil)
}

// keep keeps err if it is the first one, and returns the first one.
func (s *syncer) keep(err error) error {
	s.failure.Lock()
	defer s.failure.Unlock()
	if s.failure.err == nil {
		s.failure.err = err
	}
	return s.failure.err
}

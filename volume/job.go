package volume

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"torpor/host"
	"torpor/wire"
)

// job is a long operation under way; a log has one at a time.
type job struct {
	what  string
	begun time.Time
	stop  context.CancelFunc

	mu          sync.Mutex
	done, total int64
	changed     chan struct{} // closed and replaced by progress
	ended       chan struct{}
	result      any
	err         error
}

// progress is what the operation calls.
func (j *job) progress(done, total int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done, j.total = done, total
	close(j.changed)
	j.changed = make(chan struct{})
}

func (j *job) look() (done, total int64, changed chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.done, j.total, j.changed
}

// work is what a job does.
type work func(ctx context.Context, progress func(done, total int64)) (result any, err error)

// begin starts a job, unless there is one. Its context is the server's, not a
// client's.
func (s *Server) begin(ctx context.Context, what string, f work) (*job, error) {
	s.jobMu.Lock()
	defer s.jobMu.Unlock()
	if s.job != nil {
		return nil, &host.Refusal{Reasons: []string{fmt.Sprintf("log %s is busy: %s is under way since %s; torpor volume inspect shows how far it is",
			s.config.Log, s.job.what, s.job.begun.Format(time.TimeOnly))}}
	}
	ctx, cancel := context.WithCancel(ctx)
	j := &job{what: what, begun: time.Now(), stop: cancel, changed: make(chan struct{}), ended: make(chan struct{})}
	s.job = j
	s.jobs.Go(func() {
		defer cancel()
		j.result, j.err = f(ctx, j.progress)
		s.jobMu.Lock()
		s.job = nil
		s.jobMu.Unlock()
		close(j.ended)
	})
	return j, nil
}

// endJob stops the job that is under way, if any, and waits for its end.
func (s *Server) endJob() {
	s.jobMu.Lock()
	j := s.job
	s.jobMu.Unlock()
	if j != nil {
		j.stop()
		<-j.ended
	}
}

func (s *Server) jobStatus() *JobStatus {
	s.jobMu.Lock()
	defer s.jobMu.Unlock()
	if s.job == nil {
		return nil
	}
	done, total, _ := s.job.look()
	return &JobStatus{What: s.job.what, Begun: s.job.begun, DoneBytes: done, TotalBytes: total}
}

// longJob answers a request by starting a job and telling its progress. One that
// only reads ends when its client goes; others go on.
func (s *Server) longJob(what string, goesOn bool, f func(*http.Request, *openedLog) (work, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		log, err := s.openedLocked()
		s.mu.Unlock()
		if err != nil {
			wire.Answer(w, nil, err)
			return
		}
		work, err := f(r, log)
		if err != nil {
			wire.Answer(w, nil, err)
			return
		}
		j, err := s.begin(s.serving, what, work)
		if err != nil {
			wire.Answer(w, nil, err)
			return
		}
		j.follow(w, r)
		if r.Context().Err() != nil && !goesOn {
			j.stop()
		}
	}
}

// progressEvery bounds how often progress is told.
const progressEvery = 200 * time.Millisecond

// follow writes progress until the job ends or the client goes.
func (j *job) follow(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusOK)
	controller, encoder := http.NewResponseController(w), json.NewEncoder(w)
	tell := func(p Progress) bool { return encoder.Encode(p) == nil && controller.Flush() == nil }
	var last time.Time
	for {
		done, total, changed := j.look()
		if time.Since(last) >= progressEvery && total > 0 {
			if last = time.Now(); !tell(Progress{DoneBytes: done, TotalBytes: total}) {
				return
			}
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		case <-j.ended:
			tell(j.last())
			return
		}
	}
}

// last is the line that ends the answer.
func (j *job) last() Progress {
	done, total, _ := j.look()
	p := Progress{DoneBytes: done, TotalBytes: total, Done: true}
	if j.result != nil {
		p.Result, _ = json.Marshal(j.result) // plain data
	}
	if j.err != nil {
		p.Error, p.Kind = wire.Describe(j.err)
	}
	return p
}

package keeper

import "torpor/kernel/ptrace"

// tracers keeps tracing threads ready, so that a wake starts none.
type tracers struct{ spare chan *ptrace.Tracer }

// spareTracers wakes can happen at once without starting a thread.
const spareTracers = 2

func newTracers() *tracers {
	t := &tracers{spare: make(chan *ptrace.Tracer, spareTracers)}
	for range spareTracers {
		t.spare <- ptrace.NewTracer()
	}
	return t
}

func (t *tracers) take() *ptrace.Tracer {
	select {
	case tracer := <-t.spare:
		return tracer
	default:
		return ptrace.NewTracer()
	}
}

// put takes a tracer back that traces nothing any more.
func (t *tracers) put(tracer *ptrace.Tracer) {
	select {
	case t.spare <- tracer:
	default:
		tracer.Close()
	}
}

// close ends the spare threads; all others have been put back.
func (t *tracers) close() {
	close(t.spare)
	for tracer := range t.spare {
		tracer.Close()
	}
}

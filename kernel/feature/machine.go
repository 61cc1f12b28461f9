package feature

import "torpor/kernel/ptrace"

// machine is what probes share while they run.
type machine struct {
	tracer     *ptrace.Tracer
	subject    *subject
	subjectErr error // why there is no subject
}

func newMachine() *machine {
	m := &machine{tracer: ptrace.NewTracer()}
	m.subjectErr = m.tracer.Do(func() error {
		var err error
		m.subject, err = startSubject()
		return err
	})
	return m
}

// close ends the subject and what was made of it.
func (m *machine) close() {
	if m.subject != nil {
		_ = m.tracer.Do(m.subject.stop) // it was killed; there is nothing to be done about more
	}
	m.tracer.Close()
}

// onSubject runs f on the thread that traces the stopped subject.
func (m *machine) onSubject(f func(*subject) error) error {
	if m.subject == nil {
		return m.subjectErr
	}
	return m.tracer.Do(func() error { return f(m.subject) })
}

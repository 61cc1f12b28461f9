package hostdev

// smallBytes is how much a reader writes itself before it reads the next request;
// meanwhile others would read it.
const smallBytes = 32 << 10

// begin has the device begin what a request wants, to be answered when it is done.
// It is false if that is not for the device, or the device would be waited for.
func (s *server) begin(b *buffer, n int) bool {
	if n < headerBytes {
		return false
	}
	switch r := parseRequest(b.request()[:n]); {
	case r.op == opRead && s.reads != nil:
		s.startRead(b, r)
	case r.op == opWrite && s.writes != nil && r.writable() && r.lenBytes() <= smallBytes:
		s.startWrite(b, r)
	default:
		return false
	}
	return true
}

func (s *server) startRead(b *buffer, r request) {
	s.began()
	lenBytes := s.readable(r)
	s.reads.StartRead(b.data(lenBytes), r.offset(), func(err error) {
		s.note(s.answerRead(b, r.unique, lenBytes, err))
		s.ended(b)
	})
}

func (s *server) startWrite(b *buffer, r request) {
	s.began()
	lenBytes := r.lenBytes()
	s.writes.StartWrite([][]byte{b.data(lenBytes)}, r.offset(), 0, func(err error) {
		s.note(s.answerWrite(b, r.unique, lenBytes, err))
		s.ended(b)
	})
}

// began and ended count a request that is answered later.
func (s *server) began() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.later++
}

func (s *server) ended(b *buffer) {
	b.give()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.later--
	s.closeIfDone()
}

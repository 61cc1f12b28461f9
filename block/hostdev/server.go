package hostdev

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"

	"torpor/block"
	"torpor/kernel/fusedev"
)

// server answers the requests of one FUSE connection.
//
// Readers call the device themselves, so that a request that is answered from
// memory costs two system calls and no switch to another goroutine. When the
// last one that waits for a request got one, it starts another; when too many
// wait, they end. What a device can begin without being waited for is answered by
// whoever learns of its end, and the reader goes on: one alone, so that it need not
// be woken while there is more to read.
type server struct {
	dev       block.Device
	reads     block.AsyncReader // dev, if it is one
	writes    block.AsyncWriter // likewise
	conn      *fusedev.Connection
	readOnly  bool
	rest      *fuse.ProtocolServer // answers what is not about data
	sizeBytes atomic.Int64
	discards  bool

	done chan struct{} // closed by the last reader, or the last one to answer later

	mu       sync.Mutex
	readers  int
	waiting  int // of the readers, for requests
	later    int // requests that are answered later
	stopping bool
	dead     bool  // the connection has ended
	err      error // the first of an answer
}

var errDead = errors.New("the FUSE connection has ended")

// minReaders wait even when there is nothing to do, and no more than idleReaders:
// between them none is started or ends. One that has begun manyBegun requests in a
// row ends if another waits: with two for 4 KiB reads the kernel wakes one while the
// other is at it, which cost a quarter more CPU time. maxReaders bound how many
// requests are waited for at once; the loop device has 128.
const (
	minReaders  = 1
	idleReaders = 2
	maxReaders  = 64
	manyBegun   = 256
)

func newServer(dev block.Device, conn *fusedev.Connection, state State) *server {
	s := &server{dev: dev, conn: conn, readOnly: state.ReadOnly, discards: dev.Info().Discards, done: make(chan struct{})}
	s.reads, _ = dev.(block.AsyncReader)
	s.writes, _ = dev.(block.AsyncWriter)
	s.setSize(dev.Info())
	s.rest = fuse.NewProtocolServer(newTree(s, state.Name), mountOptions())
	return s
}

func (s *server) setSize(info block.Info) {
	s.sizeBytes.Store(info.SizeBytes &^ (block.BlockBytes - 1))
}

func (s *server) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range minReaders {
		s.addReader()
	}
}

// addReader is called with mu held.
func (s *server) addReader() {
	s.readers++
	s.waiting++
	go s.read()
}

// read is a reader. Readers end when the connection does, when stop was called,
// or when enough others wait.
func (s *server) read() {
	b := takeBuffer()
	defer func() { b.give() }()
	for begun := 1; ; begun++ {
		n, err := s.conn.Read(b.request())
		if err == nil && s.begin(b, n) {
			b = takeBuffer()
			if begun%manyBegun == 0 && s.superfluous() {
				break
			}
			continue
		}
		begun = 0
		s.got(err != nil)
		if err != nil {
			break
		}
		s.note(s.answer(b, n))
		if !s.next() {
			break
		}
	}
	s.left()
}

// got notes that a reader waits no longer, and lets another one wait instead.
func (s *server) got(end bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
	s.dead = s.dead || end
	s.stopping = s.stopping || end
	if s.waiting == 0 && s.readers < maxReaders && !s.stopping {
		s.addReader()
	}
}

// next reports whether a reader should wait for another request.
func (s *server) next() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || s.waiting >= idleReaders {
		return false
	}
	s.waiting++
	return true
}

// superfluous takes a reader out that waits like others do.
func (s *server) superfluous() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting <= minReaders {
		return false
	}
	s.waiting--
	return true
}

// note keeps an error that the kernel had with an answer. Others go on.
func (s *server) note(err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

func (s *server) left() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers--
	s.closeIfDone()
}

func (s *server) closeIfDone() {
	if s.readers+s.later == 0 {
		close(s.done)
	}
}

// stop makes all readers answer what they have read, and end. Other requests
// stay with the kernel. After an error the server goes on.
func (s *server) stop() error {
	s.mu.Lock()
	s.stopping = true
	readers := s.readers
	s.mu.Unlock()
	for range readers { // each reads at most one more request
		if err := s.conn.Wake(fileNode); err != nil && s.goOn() {
			return err
		}
	}
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return errDead
	}
	return nil
}

// answeredAll is false if the kernel did not take an answer.
func (s *server) answeredAll() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err == nil
}

// goOn takes stop back, unless all readers have ended.
func (s *server) goOn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readers+s.later == 0 {
		return false
	}
	s.stopping = false
	for s.waiting < minReaders {
		s.addReader()
	}
	return true
}

package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"torpor/internal/netlab"
	"torpor/kernel/netns"
	"torpor/kernel/thread"
	"torpor/socket/idle"
)

// SocketsOptions say what torpor bench sockets measures.
type SocketsOptions struct {
	Count    int    // connections that are suspended at the same time
	Requests int    // of each kind, for latencies; and connections that are woken in the end
	Dir      string // where the socket image is written
	Progress func(line string)
}

// SocketsResult are its figures.
type SocketsResult struct {
	Awake     Summary       `json:"awake"`      // a line and its echo, on a connection with a socket
	Woken     Summary       `json:"woken"`      // the same on a suspended one
	Suspends  float64       `json:"suspends"`   // a second, by one thread: read, recorded and closed
	Restores  float64       `json:"restores"`   // a second, by one thread: made again and forgotten
	Count     int           `json:"count"`      // suspended
	All       time.Duration `json:"all_ns"`     // to connect and suspend them, and their peers
	FileBytes float64       `json:"file_bytes"` // of the socket image, each
	HeapBytes float64       `json:"heap_bytes"` // of the index, each
	SlabBytes float64       `json:"slab_bytes"` // of the kernel, each; with all that happened on the machine meanwhile
	Correct   int           `json:"correct"`    // of Asked, answered right
	Asked     int           `json:"asked"`
	Sockets   int           `json:"sockets"` // that the kernel has of them then
}

// echoServer echoes lines and suspends its connections when it is told to.
type echoServer struct {
	lab      *netlab.Lab
	pool     *idle.Pool
	listener net.Listener

	mu    sync.Mutex
	awake map[uint64]*net.TCPConn // by tag
	tag   uint64
}

const socketsPort = 7000

// Sockets measures suspended connections between two network namespaces.
func Sockets(ctx context.Context, o SocketsOptions) (result *SocketsResult, err error) {
	dir, err := os.MkdirTemp(o.Dir, "torpor-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	lab, err := netlab.New(dir)
	if err != nil {
		return nil, err
	}
	defer lab.Close()
	s := &echoServer{lab: lab, awake: map[uint64]*net.TCPConn{}}
	if err := s.open(dir); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	peers, err := newPeers(lab, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, peers.close()) }()
	result = &SocketsResult{}
	for _, step := range []struct {
		line string
		do   func() error
	}{
		{"rates", func() error { return s.rates(peers, result) }},
		{"latencies", func() error { return s.latencies(peers, o.Requests, result) }},
		{fmt.Sprintf("%d connections", o.Count), func() error { return s.many(ctx, peers, &o, result) }},
	} {
		o.Progress(step.line)
		if err := errors.Join(step.do(), ctx.Err()); err != nil {
			return nil, err
		}
	}
	return result, nil
}

func (s *echoServer) open(dir string) error {
	address := netip.AddrPortFrom(netip.IPv4Unspecified(), socketsPort)
	err := netns.Do(s.lab.Here, func() (err error) {
		s.listener, err = (&net.ListenConfig{KeepAlive: -1}).Listen(context.Background(), "tcp4", address.String())
		return err
	})
	if err != nil {
		return err
	}
	s.pool, err = idle.Open(idle.Options{Path: filepath.Join(dir, "here.img"), Listen: []netip.AddrPort{address}, Namespace: s.lab.Here,
		Wake: func(c *net.TCPConn, tag uint64) { s.serve(c, tag) }})
	return err
}

func (s *echoServer) close() error {
	err := s.listener.Close()
	if s.pool != nil {
		err = errors.Join(err, s.pool.Close()) // the machine and its rules go with it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.awake {
		c.Close()
	}
	return err
}

// serve echoes until the connection is suspended or ends.
func (s *echoServer) serve(c *net.TCPConn, tag uint64) {
	s.mu.Lock()
	s.awake[tag] = c
	s.mu.Unlock()
	go func() {
		b := make([]byte, 64)
		for {
			n, err := c.Read(b)
			if err == nil {
				_, err = c.Write(b[:n])
			}
			if err != nil { // suspended, or ended
				c.Close()
				return
			}
		}
	}()
}

// accept takes n connections and returns their tags.
func (s *echoServer) accept(n int) ([]idle.Conn, error) {
	conns := make([]idle.Conn, n)
	for i := range conns {
		c, err := s.listener.Accept()
		if err != nil {
			return nil, err
		}
		s.tag++
		conns[i] = idle.Conn{TCPConn: c.(*net.TCPConn), Tag: s.tag}
	}
	return conns, nil
}

// suspend suspends connections, until it can be done.
func (s *echoServer) suspend(conns []idle.Conn) error {
	for tries := 0; len(conns) > 0; tries++ {
		var again []idle.Conn
		var last error
		for i, err := range s.pool.SuspendAll(conns) {
			if err != nil {
				again, last = append(again, conns[i]), err
			}
		}
		if conns = again; tries > 1000 {
			return last
		}
		if len(conns) > 0 {
			time.Sleep(time.Millisecond) // until the peers have acknowledged
		}
	}
	return nil
}

// rateBatch is how many connections are suspended at once for the rates.
const rateBatch = 10_000

// rates suspends and restores a batch several times, on one thread.
func (s *echoServer) rates(p *peers, result *SocketsResult) error {
	ends, err := p.connect(min(rateBatch, p.most))
	if err != nil {
		return err
	}
	defer p.drop(ends)
	conns, err := s.accept(len(ends))
	if err != nil {
		return err
	}
	return thread.Do(func() error { return s.measureRates(ends, conns, result) })
}

func (s *echoServer) measureRates(ends []*peer, conns []idle.Conn, result *SocketsResult) (err error) {
	const rounds = 5
	var suspending, restoring Sample
	for range rounds {
		begun := time.Now()
		for i, err := range s.pool.SuspendAll(conns) {
			if err != nil {
				return fmt.Errorf("suspend %s: %w", conns[i].RemoteAddr(), err)
			}
		}
		suspending = append(suspending, time.Since(begun))
		begun = time.Now()
		for i := range conns {
			if conns[i].TCPConn, _, err = s.pool.Take(ends[i].key()); err != nil {
				return err
			}
		}
		restoring = append(restoring, time.Since(begun))
	}
	result.Suspends = float64(len(conns)) / suspending.Percentile(50).Seconds()
	result.Restores = float64(len(conns)) / restoring.Percentile(50).Seconds()
	for _, c := range conns {
		c.Close()
	}
	return nil
}

// latencies asks on an awake connection and on a suspended one, in turn.
func (s *echoServer) latencies(p *peers, requests int, result *SocketsResult) error {
	ends, err := p.connect(2)
	if err != nil {
		return err
	}
	defer p.drop(ends)
	conns, err := s.accept(2)
	if err != nil {
		return err
	}
	s.serve(conns[0].TCPConn, conns[0].Tag)
	sleeper := conns[1:]
	var awake, woken Sample
	for range requests {
		if err := s.suspend(sleeper); err != nil {
			return err
		}
		for i, into := range []*Sample{&awake, &woken} {
			time.Sleep(time.Millisecond)
			took, err := ends[i].ask()
			if err != nil {
				return err
			}
			*into = append(*into, took)
		}
		s.mu.Lock()
		sleeper = []idle.Conn{{TCPConn: s.awake[conns[1].Tag], Tag: conns[1].Tag}}
		s.mu.Unlock()
	}
	result.Awake, result.Woken = awake.Summary(), woken.Summary()
	return nil
}

// many suspends all connections, with their peers, and wakes some.
func (s *echoServer) many(ctx context.Context, p *peers, o *SocketsOptions, result *SocketsResult) error {
	runtime.GC()
	slab, err := kernelBytes()
	if err != nil {
		return err
	}
	begun, first := time.Now(), p.used
	for done := 0; done < o.Count; {
		n := min(o.Count-done, p.most, suspendAtOnce)
		ends, err := p.connect(n)
		if err != nil {
			return err
		}
		conns, err := s.accept(n)
		if err != nil {
			return err
		}
		if err := errors.Join(s.suspend(conns), p.suspend(ends), ctx.Err()); err != nil {
			return err
		}
		if done += n; done%(100*suspendAtOnce) == 0 {
			o.Progress(fmt.Sprintf("%d of %d are suspended", done, o.Count))
		}
	}
	result.All, result.Count = time.Since(begun), s.pool.Len()
	after, err := kernelBytes()
	if err != nil {
		return err
	}
	stats := s.pool.Stats()
	each := func(n int64) float64 { return float64(n) / float64(result.Count) }
	result.SlabBytes, result.FileBytes, result.HeapBytes = each(after-slab), each(stats.Bytes), each(stats.IndexBytes)
	if result.Sockets, err = established(s.lab.Here); err != nil {
		return err
	}
	return p.askSome(first, o.Requests, result)
}

// suspendAtOnce keeps the descriptors of both ends few.
const suspendAtOnce = 1000

// askSome restores random peers, each once, and asks on their connections.
func (p *peers) askSome(first, n int, result *SocketsResult) error {
	for _, i := range rand.Perm(result.Count)[:min(n, result.Count)] {
		end, err := p.restore(first + i)
		if err != nil {
			return err
		}
		result.Asked++
		if _, err := end.ask(); err == nil {
			result.Correct++
		} else if !errors.Is(err, errWrongAnswer) {
			return err
		}
		p.drop([]*peer{end})
	}
	return nil
}

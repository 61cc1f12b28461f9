package idle_test

import (
	"bufio"
	"errors"
	"log"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"torpor/host"
	"torpor/socket/idle"
)

// gateway echoes lines to many clients that rarely say something. A client that
// was quiet for a while has no socket, no goroutine and no buffer.
type gateway struct {
	pool *idle.Pool

	mu    sync.Mutex
	quiet map[*net.TCPConn]time.Time // since when
}

// quietTime is after how long a connection is suspended.
const quietTime = 10 * time.Second

// serve answers one line, then leaves the connection to the sweeper: nobody may
// use it while it is suspended.
func (g *gateway) serve(c *net.TCPConn, _ uint64) {
	go func() {
		c.SetReadDeadline(time.Now().Add(quietTime))
		line, err := bufio.NewReader(c).ReadString('\n')
		if errors.Is(err, os.ErrDeadlineExceeded) && line == "" {
			g.mu.Lock()
			g.quiet[c] = time.Now()
			g.mu.Unlock()
			return
		}
		if err == nil {
			_, err = c.Write([]byte(line))
		}
		if err != nil {
			c.Close()
			return
		}
		g.serve(c, 0)
	}()
}

// sweep suspends what is quiet, all at once: it waits for packets under way, and
// once is enough.
func (g *gateway) sweep() {
	g.mu.Lock()
	var conns []idle.Conn
	for c := range g.quiet {
		conns = append(conns, idle.Conn{TCPConn: c})
	}
	clear(g.quiet)
	g.mu.Unlock()
	for i, err := range g.pool.SuspendAll(conns) {
		switch {
		case err == nil:
		case errors.Is(err, host.ErrRefused): // something has arrived meanwhile
			g.serve(conns[i].TCPConn, 0)
		default:
			log.Print(err)
			conns[i].Close()
		}
	}
}

func Example() {
	g := &gateway{quiet: map[*net.TCPConn]time.Time{}}
	address := netip.MustParseAddrPort("0.0.0.0:7000")
	var err error
	g.pool, err = idle.Open(idle.Options{Path: "/var/lib/gateway/idle.img", Listen: []netip.AddrPort{address}, Wake: g.serve})
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp4", address.String())
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for range time.Tick(time.Second) {
			g.sweep()
		}
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		g.serve(c.(*net.TCPConn), 0)
	}
}

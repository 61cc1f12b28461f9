package filter

import (
	"errors"
	"fmt"
	"net/netip"

	"torpor/socket"
	"torpor/socket/segment"
)

// Handler knows the suspended connections. Its methods are called by the
// goroutines of Run, and hold up what comes after the packet in hand.
type Handler interface {
	// Find returns a connection if it is suspended. Nobody may change the spec
	// until the next call for the same connection.
	Find(socket.Key) (*socket.Spec, bool)

	// Wake restores a connection that Find has returned: from then on the kernel
	// has a socket for it, and gets the packet. After an error the packet is
	// dropped; the peer will repeat it. It is called in the network namespace;
	// goroutines that it starts are not there.
	Wake(socket.Key, segment.Reason) error

	// Update remembers that the peer of a suspended connection changed its window.
	Update(socket.Key, socket.Window)
}

// Config says what a Filter guards. The zero values of numbers mean the
// defaults.
type Config struct {
	Namespace string // path of the network namespace; "": that of the calling thread
	Table     string // of nftables, of the family inet; it is the Filter's own

	// Guard names local ports, and addresses if they are not the zero Addr. The
	// zero AddrPort guards everything.
	Guard []netip.AddrPort

	FastPath  bool   // packets that have a socket do not come to the queues; see the package
	Queues    int    // 1; connections are spread over them by their ports
	QueueBase uint16 // number of the first, one namespace has each once

	SYNRate       int // 2000 a second: more than these do not come to the queues
	ProbeRate     int // 100000 a second: answers to keepalives and the like, by peers that know where the connection is
	ChallengeRate int // 1000 a second: answers to all others

	Handler Handler
}

const (
	defaultSYNRate       = 2000
	defaultProbeRate     = 100_000
	defaultChallengeRate = 1000
)

// withDefaults checks the configuration.
func (c Config) withDefaults() (Config, error) {
	for _, d := range []struct {
		value *int
		is    int
	}{{&c.Queues, 1}, {&c.SYNRate, defaultSYNRate}, {&c.ProbeRate, defaultProbeRate}, {&c.ChallengeRate, defaultChallengeRate}} {
		if *d.value == 0 {
			*d.value = d.is
		}
		if *d.value < 0 {
			return c, errors.New("a number below zero")
		}
	}
	switch {
	case c.Table == "":
		return c, errors.New("no table")
	case c.Handler == nil:
		return c, errors.New("no handler")
	case len(c.Guard) == 0:
		return c, errors.New("nothing to guard")
	case int(c.QueueBase)+c.Queues > 1<<16:
		return c, fmt.Errorf("%d queues from %d on", c.Queues, c.QueueBase)
	}
	for _, g := range c.Guard {
		if g.Port() == 0 && g != (netip.AddrPort{}) {
			return c, fmt.Errorf("guard %s: no port", g.Addr())
		}
	}
	return c, nil
}

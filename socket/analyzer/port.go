package analyzer

import "torpor/socket"

// habit is how regular the pings are on the connections of one local port. A
// connection that has not shown any itself is taken to be like others there: a
// client that comes while the service mostly sleeps would never get the pings
// by which they are learnt.
type habit struct {
	rhythm      rhythm
	connections int // that it was learnt from
	met, missed int // pings that were foretold to other connections
}

const (
	leastConnections = 2
	keptPorts        = 64
)

func (b *habit) trusted() bool { return b.connections >= leastConnections && 2*b.missed <= b.met+2 }

// rhythm is that of a connection's pings, its own or that of its port; false if
// none is known.
func (a *Analyzer) rhythm(k socket.Key, h *history) (rhythm, bool) {
	if r, ok := h.ping.rhythm(); ok {
		return r, true
	}
	if b := a.borrowed(k, h); b != nil {
		return b.rhythm, true
	}
	return rhythm{}, false
}

// borrowed returns the habit that a connection is expected to have, if it has
// not shown its own and did not disappoint.
func (a *Analyzer) borrowed(k socket.Key, h *history) *habit {
	if h.ping.doubts > 0 || h.ping.n >= leastIntervals {
		return nil
	}
	b := a.ports[k.Local.Port()]
	if b == nil || !b.trusted() {
		return nil
	}
	return b
}

// teach notes the rhythm of a connection that has just become regular.
func (a *Analyzer) teach(k socket.Key, r rhythm) {
	b := a.ports[k.Local.Port()]
	if b == nil {
		if len(a.ports) >= keptPorts { // ports of connections that it opened itself are used once
			for port, b := range a.ports {
				if b.connections < leastConnections {
					delete(a.ports, port)
				}
			}
		}
		if len(a.ports) >= keptPorts {
			return
		}
		b = &habit{}
		a.ports[k.Local.Port()] = b
	}
	b.rhythm = r
	b.connections++
}

// disappointed notes that an expected ping did not come, or not when expected.
func (a *Analyzer) disappointed(k socket.Key, h *history) {
	if b := a.borrowed(k, h); b != nil {
		b.missed++
	}
	h.ping.disappoint()
}

package analyzer

import (
	"time"

	"torpor/socket"
)

// Observation is what the kernel tells of one connection. Counters begin with
// the socket: a connection that was restored has another.
type Observation struct {
	socket.Key
	Established bool   // else the peer has sent its end
	Socket      uint64 // tells sockets apart

	Unread, Unacknowledged  uint32        // bytes in the queues: received, written
	SegmentsIn, SegmentsOut uint32        // with data, without repetitions
	AcksIn, AcksOut         uint32        // without data
	SinceIn, SinceOut       time.Duration // since data was received or sent, if any was
	KeepAlive               bool          // probes are sent
	Repeated                uint32        // segments that were sent again
}

// Activity is what happened between two looks.
type Activity struct {
	Used string // why the service counts as used; empty if it does not
	Own  bool   // it sent pings by itself, or they were answered
}

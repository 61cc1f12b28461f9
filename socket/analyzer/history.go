package analyzer

import "time"

// history is what is remembered of one connection.
type history struct {
	socket                  uint64
	segmentsIn, segmentsOut uint32 // as last seen
	acksIn, acksOut         uint32
	unread, unacknowledged  uint32
	repeated                uint32
	lastIn, lastOut         moment // data; never if there was none
	first                   moment // look at it
	streak                  moment // since when data went between all looks; never if not between the last two
	gap                     time.Duration
	ping                    ping
	look                    uint32 // at which it was last seen
	gaps                    uint8  // that are in gap, up to leastGaps
	peers                   bool   // the peer began the last exchange
	established             bool
	keepAlive               bool
}

// leastGaps is after how many gaps a usual one is known; later ones count a
// quarter each.
const (
	leastGaps  = 3
	gapWeight  = 4
	answerTime = time.Second // data from the peer after a ping is its answer for so long
)

// last is when data last went; a connection without any counts from when it was
// found.
func (h *history) last() moment { return max(h.lastIn, h.lastOut, h.first) }

// usual is the usual silence before the peer speaks, of those in which the
// service would fall asleep.
func (h *history) usual() (time.Duration, bool) { return h.gap, h.gaps >= leastGaps }

// turn is what a connection was used for between two looks.
type turn uint8

const (
	silent   turn = iota
	byPeer        // the peer began, or what the service did can not be told apart from an answer
	byItself      // the service began
	answered      // the peer answered what the service began
)

// observe brings the history up to date.
func (h *history) observe(o *Observation, now moment) turn {
	if o.Socket != h.socket {
		h.socket, h.segmentsIn, h.segmentsOut, h.acksIn, h.acksOut = o.Socket, 0, 0, 0, 0
	}
	in, out := o.SegmentsIn-h.segmentsIn, o.SegmentsOut-h.segmentsOut
	acksIn, acksOut := o.AcksIn-h.acksIn, o.AcksOut-h.acksOut
	h.segmentsIn, h.segmentsOut, h.acksIn, h.acksOut = o.SegmentsIn, o.SegmentsOut, o.AcksIn, o.AcksOut
	h.unread, h.unacknowledged, h.established, h.keepAlive, h.repeated = o.Unread, o.Unacknowledged, o.Established, o.KeepAlive, o.Repeated
	if in == 0 && out == 0 {
		return silent
	}
	atIn, atOut := h.lastIn, h.lastOut
	if in > 0 {
		atIn = max(now.add(-o.SinceIn), h.lastIn)
	}
	if out > 0 {
		atOut = max(now.add(-o.SinceOut), h.lastOut)
	}
	t := h.turn(in, out, atIn, atOut, acksIn, acksOut)
	h.lastIn, h.lastOut = atIn, atOut
	return t
}

// turn says who began.
func (h *history) turn(in, out uint32, atIn, atOut moment, acksIn, acksOut uint32) turn {
	unanswered := h.peers && h.lastIn > h.lastOut
	switch {
	case in == 0:
		if unanswered {
			return byPeer // its answer, however long it took
		}
		return byItself
	case out == 0:
		if !h.peers && h.lastOut >= h.lastIn && h.lastOut != never && atIn.since(h.lastOut) <= answerTime {
			return answered
		}
		return byPeer
	case unanswered || in > out:
		return byPeer
	case atOut < atIn:
		return byItself
	case atOut == atIn && acksOut > acksIn:
		return byItself
	}
	return byPeer
}

// spoke notes a gap before the peer began an exchange, if the service would
// sleep in it.
func (h *history) spoke(gap, least time.Duration) {
	switch {
	case gap < least:
	case h.gaps == 0:
		h.gap, h.gaps = gap, 1
	default:
		h.gap += (gap - h.gap) / min(time.Duration(h.gaps)+1, gapWeight)
		h.gaps = min(h.gaps+1, leastGaps)
	}
}

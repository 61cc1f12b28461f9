package segment

import "torpor/socket"

// Action is what is to be done with a segment of a suspended connection. All
// but Wake drop it.
type Action uint8

// The actions. The zero value is the harmless one.
const (
	Drop   Action = iota
	Reply         // send Decision.Answer
	Update        // remember Decision.Window
	Wake          // restore the socket, then release the segment to it
)

// Reason is why.
type Reason uint8

// The reasons.
const (
	Nothing      Reason = iota // it changes nothing
	Data                       // new bytes
	Urgent                     // the URG flag
	End                        // FIN
	Reset                      // RST
	Probe                      // keepalive, or of a closed window
	Old                        // a repetition of what was received
	WindowChange               // of the peer
	Challenge                  // SYN, or RST that is not exact (RFC 5961)
	Unsent                     // acknowledges what was never sent, or what is too old
	Outside                    // of the receive window
	NoACK                      // a segment that no connection has
	reasons
)

var reasonNames = [reasons]string{"nothing", "data", "urgent", "end", "reset", "probe", "old", "window", "challenge", "unsent", "outside", "no ACK"}

func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Decision is what Judge says.
type Decision struct {
	Action Action
	Reason Reason
	Answer Answer        // if Action is Reply
	Window socket.Window // if Action is Update
}

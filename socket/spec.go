package socket

import (
	"net/netip"
	"time"

	"torpor/kernel/socket"
)

// Key names a connection by its addresses, as seen from this end. Addresses are
// unmapped: one of IPv4 is the same in a socket of IPv6.
type Key struct {
	Local, Remote netip.AddrPort
}

// Sequence is a number of a byte of a TCP stream; it wraps around.
type Sequence uint32

// After reports whether s comes after t, modulo 2^32 (RFC 9293, section 3.4).
func (s Sequence) After(t Sequence) bool { return int32(s-t) > 0 }

// Spec is all that is known of a suspended connection.
type Spec struct {
	Key
	IPv6 bool // the socket is of IPv6; its addresses may be those of IPv4

	SendNext    Sequence // of the next byte to send; all before is acknowledged
	ReceiveNext Sequence // of the next byte that is expected; all before is in Unread or was read

	Window                  Window
	Scaling                 bool   // both ends scale windows, by:
	SendScale, ReceiveScale uint8  // of what the peer announces, and of what this end does
	SegmentMaximum          uint16 // MSS that the peer announced, in bytes
	SACK                    bool
	Timestamps              bool
	Clock                   Clock // if Timestamps

	Blocking bool           // operations wait: it has not O_NONBLOCK
	Unread   []byte         // received, and not read by the application
	Options  socket.Options // those that differ from a fresh socket's
	Tag      uint64         // the owner's
}

// Window is struct tcp_repair_window of linux/tcp.h. Sizes are in bytes, not
// scaled.
type Window struct {
	SentAt  Sequence // snd_wl1: of the segment that last changed Send
	Send    uint32   // what the peer is ready to receive
	Maximum uint32   // largest Send seen
	Receive uint32   // what this end is ready to receive, counted from Updated
	Updated Sequence // rcv_wup: ReceiveNext when Receive was announced
}

// Clock is the clock of the timestamps option (RFC 7323). It goes on while the
// connection is suspended.
type Clock struct {
	Value uint32        // TSval
	At    time.Duration // CLOCK_BOOTTIME when it was Value
}

// Now returns the value at a time of CLOCK_BOOTTIME.
//
// The kernel counts milliseconds, or microseconds if the lowest bit is set
// (since 6.7; TCP_TIMESTAMP in tcp(7)).
func (c Clock) Now(boot time.Duration) uint32 {
	elapsed := boot - c.At
	if c.Value&1 != 0 {
		return c.Value + uint32(elapsed.Microseconds())&^1
	}
	return c.Value + uint32(elapsed.Milliseconds()+1)&^1
}

func (k Key) unmap() Key {
	return Key{
		netip.AddrPortFrom(k.Local.Addr().Unmap(), k.Local.Port()),
		netip.AddrPortFrom(k.Remote.Addr().Unmap(), k.Remote.Port()),
	}
}

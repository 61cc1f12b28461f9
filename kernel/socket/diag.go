package socket

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// States of a socket, those of TCP, which Unix sockets use too.
const (
	Established = 1
	SynSent     = 2
	FinWait1    = 4
	FinWait2    = 5
	Closed      = 7
	LastAck     = 9
	Listening   = 10
	Closing     = 11
)

// Unixes are the Unix sockets of a network namespace by inode.
type Unixes map[uint32]UnixInfo

// UnixInfo is what the kernel says of a Unix socket.
type UnixInfo struct {
	State    int
	Name     []byte // an abstract name begins with a zero
	File     uint32 // inode of the socket file; 0: none
	Peer     uint32 // inode of the peer; 0: none, or gone
	HasPeer  bool   // also one that is gone
	Backlog  int    // of a listening socket
	Shutdown int    // bit 0: it does not receive, bit 1: it does not send
}

// Attributes of linux/unix_diag.h, and which of them to show.
const (
	diagName     = 0
	diagVFS      = 1
	diagPeer     = 2
	diagQueue    = 4
	diagShutdown = 6

	showAll = 1<<0 | 1<<1 | 1<<2 | 1<<4
)

// unixRequest is struct unix_diag_req for all sockets.
type unixRequest struct{}

func (unixRequest) Len() int { return 24 }

func (unixRequest) Serialize() []byte {
	b := make([]byte, 24)
	b[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0)) // states
	binary.NativeEndian.PutUint32(b[12:], showAll)
	return b
}

// ListUnix asks by sock_diag(7). Needs CONFIG_UNIX_DIAG.
func ListUnix() (Unixes, error) {
	request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	request.AddData(unixRequest{})
	messages, err := request.Execute(unix.NETLINK_SOCK_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	if err != nil {
		return nil, fmt.Errorf("list Unix sockets: %w", err)
	}
	all := Unixes{}
	for _, m := range messages {
		if len(m) < 16 { // struct unix_diag_msg
			return nil, fmt.Errorf("list Unix sockets: message of %d bytes", len(m))
		}
		info := UnixInfo{State: int(m[2])}
		if err := info.parse(m[16:]); err != nil {
			return nil, fmt.Errorf("list Unix sockets: %w", err)
		}
		all[binary.NativeEndian.Uint32(m[4:])] = info
	}
	return all, nil
}

func (u *UnixInfo) parse(b []byte) error {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		v := a.Value
		switch {
		case a.Attr.Type == diagName:
			u.Name = v
			if len(v) > 0 && v[0] != 0 && v[len(v)-1] == 0 {
				u.Name = v[:len(v)-1] // a path ends with a zero
			}
		case a.Attr.Type == diagVFS && len(v) >= 8:
			u.File = binary.NativeEndian.Uint32(v)
		case a.Attr.Type == diagPeer && len(v) >= 4:
			u.Peer, u.HasPeer = binary.NativeEndian.Uint32(v), true
		case a.Attr.Type == diagQueue && len(v) >= 8 && u.State == Listening:
			u.Backlog = int(binary.NativeEndian.Uint32(v[4:]))
		case a.Attr.Type == diagShutdown && len(v) >= 1:
			u.Shutdown = int(v[0])
		}
	}
	return nil
}

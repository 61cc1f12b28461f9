package object

import (
	"net/netip"
	"time"

	"torpor/kernel/socket"
)

// Kind says what an open file is.
type Kind string

// The kinds of Spec.
const (
	KindStandard  Kind = "standard"  // one of the container's own standard streams
	KindFile      Kind = "file"      // anything that its path opens: file, directory, device, named pipe
	KindContent   Kind = "content"   // a file that no path leads to any more, in the checkpoint's directory
	KindPipe      Kind = "pipe"      // an end of a pipe both of whose ends are described, or that is alone
	KindSocket    Kind = "socket"    // see SocketSpec
	KindEvents    Kind = "events"    // an epoll set, made empty: its owner registers
	KindCounter   Kind = "counter"   // an eventfd
	KindTimer     Kind = "timer"     // a timerfd
	KindSignals   Kind = "signals"   // a signalfd
	KindWatches   Kind = "watches"   // inotify
	KindNamespace Kind = "namespace" // one of the container's own namespaces
)

// Spec is how an open file description is made again. Specs of one checkpoint
// refer to each other by index.
type Spec struct {
	Kind  Kind `json:"kind"`
	Same  int  `json:"same"`            // index of an earlier Spec that is the same open file; -1: it is the first
	Flags int  `json:"flags,omitempty"` // as F_GETFL has them

	Standard int          `json:"standard,omitempty"` // of KindStandard: 0, 1 or 2
	File     *FileSpec    `json:"file,omitempty"`
	Content  *ContentSpec `json:"content,omitempty"`
	Pipe     *PipeSpec    `json:"pipe,omitempty"`
	Socket   *SocketSpec  `json:"socket,omitempty"`
	Counter  *CounterSpec `json:"counter,omitempty"`
	Timer    *TimerSpec   `json:"timer,omitempty"`
	Signals  uint64       `json:"signals,omitempty"` // mask of KindSignals, signal 1 is bit 0
	Watches  []WatchSpec  `json:"watches,omitempty"`
	Name     string       `json:"name,omitempty"` // of KindNamespace: net, mnt, ...

	FlockMode int         `json:"flock,omitempty"`  // LOCK_SH or LOCK_EX held by flock(2)
	Ranges    []RangeSpec `json:"ranges,omitempty"` // locks of the open file (F_OFD_SETLK)
	Signal    int         `json:"signal,omitempty"` // F_SETSIG
}

// FileSpec is a file that is opened by its path in the container. Size and
// time, of regular files that are only read or mapped, tell a changed one.
type FileSpec struct {
	Path        string    `json:"path"` // absolute, in the container's mount namespace
	OffsetBytes int64     `json:"offset_bytes,omitempty"`
	Fixed       bool      `json:"fixed,omitempty"` // must be unchanged
	SizeBytes   int64     `json:"size_bytes,omitempty"`
	ModTime     time.Time `json:"mod_time,omitzero"`
}

// ContentSpec is a file whose content is in the checkpoint's directory.
type ContentSpec struct {
	ID          int    `json:"id"`   // of the file in the directory; several Specs may open the same
	Name        []byte `json:"name"` // of a memory file; of others, for messages, their last path
	SizeBytes   int64  `json:"size_bytes"`
	OffsetBytes int64  `json:"offset_bytes,omitempty"`
	Mode        uint32 `json:"mode"`
	UID         uint32 `json:"uid,omitempty"`
	GID         uint32 `json:"gid,omitempty"`
	Seals       int    `json:"seals,omitempty"`  // of memory files
	Memory      bool   `json:"memory,omitempty"` // else it was on a file system that keeps files
}

// PipeSpec is an end of a pipe; the access mode in Spec.Flags says which. Ends
// with the same ID are of the same pipe; the first holds what is unread.
type PipeSpec struct {
	ID            int      `json:"id"`
	CapacityBytes int      `json:"capacity_bytes"`
	Packets       bool     `json:"packets,omitempty"` // each element of Unread is a packet
	Unread        [][]byte `json:"unread,omitempty"`
}

// CounterSpec is an eventfd.
type CounterSpec struct {
	Count     uint64 `json:"count"`
	Semaphore bool   `json:"semaphore,omitempty"`
}

// TimerSpec is a timerfd. One that was set to a time of day goes off at that
// time; any other when as much time has passed as was left.
type TimerSpec struct {
	Clock    int           `json:"clock"`           // CLOCK_*
	Flags    int           `json:"flags,omitempty"` // TFD_TIMER_*
	Left     time.Duration `json:"left_ns,omitempty"`
	At       time.Time     `json:"at,omitzero"`
	Interval time.Duration `json:"interval_ns,omitempty"`
	Ticks    uint64        `json:"ticks,omitempty"` // not yet read
}

// WatchSpec is one watch of inotify.
type WatchSpec struct {
	Number int    `json:"number"` // the watch descriptor
	Path   string `json:"path"`
	Mask   uint32 `json:"mask"` // IN_*
}

// RangeSpec is a locked range of bytes; End is excluded, -1 is the end of the
// file.
type RangeSpec struct {
	Start int64 `json:"start"`
	End   int64 `json:"end"`
	Write bool  `json:"write,omitempty"`
}

// SocketState says what a socket does.
type SocketState string

// The states of a SocketSpec.
const (
	SocketIdle      SocketState = "idle" // not connected; may have an address
	SocketListening SocketState = "listening"
	SocketConnected SocketState = "connected" // of TCP and Unix: to another Spec
	SocketReset     SocketState = "reset"     // it was connected; its peer is gone when it is made
)

// SocketSpec is a socket.
type SocketSpec struct {
	Domain   int         `json:"domain"`
	Type     int         `json:"type"`
	Protocol int         `json:"protocol,omitempty"`
	State    SocketState `json:"state"`

	Local  netip.AddrPort `json:"local,omitzero"`
	Remote netip.AddrPort `json:"remote,omitzero"`

	// Name is that of a Unix socket: a path, or bytes behind a zero. A path may
	// be relative to Directory.
	Name      []byte          `json:"name,omitempty"`
	Directory string          `json:"directory,omitempty"`
	File      *SocketFileSpec `json:"file,omitempty"` // of a path

	Port   uint32   `json:"port,omitempty"`   // of netlink
	Groups []uint32 `json:"groups,omitempty"` // of netlink

	Backlog int `json:"backlog,omitempty"`
	// Peer is the index of the Spec that a TCP or Unix socket is connected to;
	// -1: none. The Peer's own Peer is another one where datagrams go one way.
	Peer int `json:"peer"`
	// Unread is what was received and not read: one element a message, one at
	// most for streams.
	Unread   [][]byte `json:"unread,omitempty"`
	Shutdown int      `json:"shutdown,omitempty"` // bit 0: receiving, bit 1: sending has ended
	// Reset names, for people, the peer that a restore loses. SocketReset without
	// it had lost its peer before.
	Reset string `json:"reset,omitempty"`

	Options     socket.Options      `json:"options,omitempty"` // those that are not the default
	Memberships []socket.Membership `json:"memberships,omitempty"`
}

// SocketFileSpec is the file of a Unix socket.
type SocketFileSpec struct {
	Mode uint32 `json:"mode"`
	UID  uint32 `json:"uid,omitempty"`
	GID  uint32 `json:"gid,omitempty"`
}

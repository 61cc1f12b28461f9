package object

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"torpor/host"
	"torpor/kernel/eventfile"
	"torpor/kernel/openfile"
	"torpor/kernel/socket"
)

// What a list of Specs may be at most.
const (
	specsMost    = 1 << 16
	pipeMost     = 1 << 30
	sizeMost     = 1 << 50
	countMost    = ^uint64(0) - 1 // of an eventfd
	signalMost   = 64
	watchSumMost = 1 << 18 // watch numbers that are used up
)

// Validate checks that Specs are ones that Describe could have given: every
// index, value, length and path, so that Make can not be made to do anything
// else. Errors match host.ErrCorrupt.
func Validate(specs []Spec) error {
	if len(specs) > specsMost {
		return fmt.Errorf("validate open files: %w: %d of them", host.ErrCorrupt, len(specs))
	}
	v := &validation{specs: specs}
	for i := range specs {
		if what := v.spec(i); what != "" {
			return fmt.Errorf("validate open file %d: %w: %s", i, host.ErrCorrupt, what)
		}
	}
	if v.bytes > contentMost {
		return fmt.Errorf("validate open files: %w: %d unread bytes", host.ErrCorrupt, v.bytes)
	}
	return nil
}

// validation is one Validate in progress. Its methods say what is wrong, or "".
type validation struct {
	specs   []Spec
	bytes   int64
	watches int
}

func (v *validation) spec(i int) string {
	s := &v.specs[i]
	if s.Same >= i || s.Same < -1 || s.Same >= 0 && v.specs[s.Same].Same != -1 {
		return fmt.Sprintf("it is the same as %d", s.Same)
	}
	if s.Same >= 0 {
		return ""
	}
	if s.Flags&^keptFlags != 0 || s.Flags&syscall.O_ACCMODE == syscall.O_ACCMODE {
		return fmt.Sprintf("flags %#o", s.Flags)
	}
	if s.Signal < 0 || s.Signal > signalMost {
		return fmt.Sprintf("signal %d", s.Signal)
	}
	if s.FlockMode != 0 && s.FlockMode != syscall.LOCK_SH && s.FlockMode != syscall.LOCK_EX {
		return fmt.Sprintf("lock of mode %d", s.FlockMode)
	}
	for _, r := range s.Ranges {
		if r.Start < 0 || r.End != -1 && r.End <= r.Start {
			return fmt.Sprintf("lock of bytes %d to %d", r.Start, r.End)
		}
	}
	return v.kind(i)
}

func (v *validation) kind(i int) string {
	s := &v.specs[i]
	switch s.Kind {
	case KindStandard:
		return unless(s.Standard >= 0 && s.Standard <= 2, "its number")
	case KindFile:
		return unless(s.File != nil && validPath(s.File.Path) && validOffset(s.File.OffsetBytes), "its path or offset")
	case KindContent:
		return v.content(s.Content)
	case KindPipe:
		if s.Pipe == nil {
			return "it has no pipe"
		}
		v.bytes += sizeOf(s.Pipe.Unread)
		return unless(s.Pipe.ID >= 0 && s.Pipe.CapacityBytes > 0 && s.Pipe.CapacityBytes <= pipeMost, "its pipe")
	case KindSocket:
		if s.Socket == nil {
			return "it has no socket"
		}
		return v.socket(i, s.Socket)
	case KindCounter:
		return unless(s.Counter != nil && s.Counter.Count <= countMost, "its counter")
	case KindTimer:
		return unless(s.Timer != nil && s.Timer.valid(), "its timer")
	case KindWatches:
		return v.watch(s.Watches)
	case KindNamespace:
		return unless(slices.Contains(namespaces, s.Name), "its name")
	case KindEvents, KindSignals:
		return ""
	}
	return fmt.Sprintf("kind %q", s.Kind)
}

func unless(ok bool, what string) string {
	if ok {
		return ""
	}
	return what
}

// validPath reports whether a path is an absolute one as the kernel writes it.
func validPath(p string) bool {
	return strings.HasPrefix(p, "/") && path.Clean(p) == p && len(p) < syscall.PathMax && !strings.ContainsRune(p, 0) && utf8.ValidString(p)
}

func validOffset(n int64) bool { return n >= 0 }

func (v *validation) content(c *ContentSpec) string {
	if c == nil {
		return "it has no content"
	}
	return unless(c.ID >= 0 && c.ID < specsMost && c.SizeBytes >= 0 && c.SizeBytes <= sizeMost && validOffset(c.OffsetBytes) &&
		c.Mode&^0o7777 == 0 && c.Seals&^openfile.SealsKnown == 0 && !slices.Contains(c.Name, 0), "its content")
}

func (v *validation) watch(watches []WatchSpec) string {
	last := 0
	for _, w := range watches {
		if w.Number <= last || w.Number > eventfile.WatchesMost || !validPath(w.Path) || w.Mask&^eventfile.WatchMask != 0 {
			return fmt.Sprintf("watch %d", w.Number)
		}
		last = w.Number
	}
	v.watches += last
	return unless(v.watches <= watchSumMost, "its watches")
}

func (v *validation) socket(i int, s *SocketSpec) string {
	v.bytes += sizeOf(s.Unread)
	kind := s.kind()
	internet := kind.Internet()
	switch {
	case refusedSocket(kind) != "" || kind.Domain == socket.Unix && (kind.Protocol != 0 || !unixType(kind.Type)) ||
		kind.Domain == socket.Netlink && kind.Type != socket.Raw && kind.Type != socket.Datagram:
		return "its kind"
	case !s.Options.Valid(kind):
		return "its options"
	case s.Shutdown < 0 || s.Shutdown > 3 || s.Backlog < 0:
		return "its state"
	case len(s.Memberships) > 0 && (!internet || kind.Type != socket.Datagram):
		return "its multicast groups"
	case kind.Type == socket.Stream && len(s.Unread) > 1:
		return "its unread data"
	case internet && s.State != SocketReset && !v.addresses(s):
		return "its addresses"
	case kind.Domain == socket.Unix && !s.validName():
		return "its name"
	}
	return v.state(i, s)
}

func unixType(t int) bool { return t == socket.Stream || t == socket.Datagram || t == socket.SeqPacket }

// addresses reports whether a socket of the Internet has those that its state
// needs, of its domain.
func (v *validation) addresses(s *SocketSpec) bool {
	local, remote := s.Local.Addr(), s.Remote.Addr()
	for _, a := range []bool{local.Unmap().Is4(), !s.Remote.IsValid() || remote.Unmap().Is4()} {
		if s.Domain == socket.IPv4 && !a {
			return false
		}
	}
	return local.IsValid() && (s.State != SocketConnected || s.Remote.IsValid())
}

func (s *SocketSpec) validName() bool {
	if !socket.ValidName(s.Name) {
		return false
	}
	if len(s.Name) == 0 || s.Name[0] == 0 {
		return s.File == nil && s.Directory == ""
	}
	return s.File != nil && s.File.Mode&^0o7777 == 0 && !slices.Contains(s.Name, 0) && s.Name[0] != '@' &&
		(s.Directory == "") == path.IsAbs(string(s.Name)) && (s.Directory == "" || validPath(s.Directory))
}

// state checks what a socket's state says about its peer.
func (v *validation) state(i int, s *SocketSpec) string {
	paired := s.Domain == socket.Unix || s.kind().Internet() && s.Type == socket.Stream
	switch {
	case s.Peer < -1 || s.Peer >= len(v.specs) || s.Peer == i || s.Peer >= 0 && (!paired || s.State != SocketConnected):
		return "its peer"
	case s.State == SocketListening:
		return unless(paired && s.Type != socket.Datagram && len(s.Unread) == 0, "it can not listen")
	case s.State == SocketReset:
		return unless(paired && (s.Domain == socket.Unix || len(s.Unread) == 0), "it can not be reset")
	case s.State == SocketIdle:
		return unless(len(s.Unread) == 0 || s.Domain == socket.Unix && s.Type == socket.Datagram && len(s.Name) > 0, "its unread data")
	case s.State != SocketConnected:
		return fmt.Sprintf("state %q", s.State)
	case !paired:
		return unless(s.kind().Internet() && len(s.Unread) == 0, "it can not be connected")
	case s.Peer < 0:
		return "it has no peer"
	}
	return v.peer(i, s)
}

// peer checks the other end of a connection.
func (v *validation) peer(i int, s *SocketSpec) string {
	other := &v.specs[s.Peer]
	if other.Same != -1 || other.Kind != KindSocket || other.Socket == nil {
		return "its peer is no socket"
	}
	o := other.Socket
	if o.Type != s.Type || o.Protocol != s.Protocol || (o.Domain == socket.Unix) != (s.Domain == socket.Unix) {
		return "its peer is of another kind"
	}
	if o.Peer == i {
		return unless(o.State == SocketConnected && (s.Domain == socket.Unix || s.Protocol == socket.TCP), "its peer is not connected")
	}
	oneWay := s.Domain == socket.Unix && s.Type == socket.Datagram && len(o.Name) > 0
	return unless(oneWay && (len(s.Unread) == 0 || len(s.Name) > 0), "its peer has another one")
}

package socket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"torpor/host"
	"torpor/kernel/socket"
)

// A record is a Spec in binary, little endian, the key first
// (docs/format/socket-image.md):
//
//	flags, uint16; local and remote port, uint16 each
//	local and remote address, 4 or 16 bytes each
//	zones, if flagged: length in one byte, and text
//	SegmentMaximum, uint16; SendNext and ReceiveNext, uint32 each
//	varints: ReceiveNext - Window.SentAt, Window.Send, Window.Maximum - Send,
//	    Window.Receive, ReceiveNext - Window.Updated; differences modulo 2^32
//	scales in one byte, if Scaling: what is sent in the lower half
//	Clock.Value, uint32, and Clock.At in ns, varint, if Timestamps
//	Tag, varint
//	Unread, if flagged: length, varint, and bytes
//	options, if flagged: count; of each level, name, length, varints, and value
//
// Each Spec has one record: varints are the shortest, flagged parts not empty.
const (
	flagIPv6 = 1 << iota
	flagLong // addresses have 16 bytes
	flagLocalZone
	flagRemoteZone
	flagScaling
	flagSACK
	flagTimestamps
	flagUnread
	flagOptions
	flagBlocking
	flagsKnown = 1<<iota - 1
)

// Limits of what a record holds.
const (
	UnreadMost  = 64 << 20 // bytes
	scaleMost   = 14       // RFC 7323, section 2.3
	zoneMost    = 15       // bytes: the longest name of a device
	optionsMost = 256
	optionLeast = 3 // bytes in a record

	keyHeaderBytes = 6
)

// KeyMost is the greatest number of bytes that DecodeKey needs of a record.
const KeyMost = keyHeaderBytes + 2*16 + 2*(1+zoneMost)

// Validate checks what Append relies on and restoring a connection needs. Its
// errors match host.ErrInvalid.
func (s *Spec) Validate() error {
	if cause := s.invalid(); cause != "" {
		return fmt.Errorf("validate connection %s to %s: %s: %w", s.Local, s.Remote, cause, host.ErrInvalid)
	}
	return nil
}

// invalid says what is wrong.
func (s *Spec) invalid() string {
	if cause := s.Key.invalid(); cause != "" {
		return cause
	}
	kind := socket.Kind{Domain: socket.IPv4, Type: socket.Stream, Protocol: socket.TCP}
	if s.IPv6 {
		kind.Domain = socket.IPv6
	}
	switch {
	case !s.IPv6 && !s.Local.Addr().Is4():
		return "addresses of IPv6 in a socket of IPv4"
	case s.SendScale > scaleMost || s.ReceiveScale > scaleMost:
		return "window scale above 14"
	case !s.Scaling && (s.SendScale != 0 || s.ReceiveScale != 0):
		return "window scale without scaling"
	case s.Clock.At < 0:
		return "negative time of the clock"
	case !s.Timestamps && s.Clock != Clock{}:
		return "clock without timestamps"
	case len(s.Unread) > UnreadMost:
		return "more than 64 MiB unread"
	case len(s.Options) > optionsMost || !s.Options.Valid(kind):
		return "options that such a socket has not"
	}
	return ""
}

func (k Key) invalid() string {
	local, remote := k.Local.Addr(), k.Remote.Addr()
	for _, a := range [...]netip.Addr{local, remote} {
		switch {
		case !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6():
			return "address that a connection has not"
		case len(a.Zone()) > zoneMost:
			return "zone longer than a device's name"
		}
	}
	switch {
	case local.Is4() != remote.Is4():
		return "addresses of different families"
	case k.Local.Port() == 0 || k.Remote.Port() == 0:
		return "port 0"
	}
	return ""
}

// Append appends the record of a valid Spec.
func (s *Spec) Append(b []byte) []byte {
	b = s.Key.appendTo(b, s.flags())
	b = binary.LittleEndian.AppendUint16(b, s.SegmentMaximum)
	b = binary.LittleEndian.AppendUint32(b, uint32(s.SendNext))
	b = binary.LittleEndian.AppendUint32(b, uint32(s.ReceiveNext))
	for _, v := range [...]uint32{
		uint32(s.ReceiveNext - s.Window.SentAt), s.Window.Send, s.Window.Maximum - s.Window.Send,
		s.Window.Receive, uint32(s.ReceiveNext - s.Window.Updated),
	} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	if s.Scaling {
		b = append(b, s.SendScale|s.ReceiveScale<<4)
	}
	if s.Timestamps {
		b = binary.LittleEndian.AppendUint32(b, s.Clock.Value)
		b = binary.AppendUvarint(b, uint64(s.Clock.At))
	}
	b = binary.AppendUvarint(b, s.Tag)
	if len(s.Unread) > 0 {
		b = append(binary.AppendUvarint(b, uint64(len(s.Unread))), s.Unread...)
	}
	if len(s.Options) == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(s.Options)))
	for _, o := range s.Options {
		for _, v := range [...]int{o.Level, o.Name, len(o.Value)} {
			b = binary.AppendUvarint(b, uint64(v))
		}
		b = append(b, o.Value...)
	}
	return b
}

// flags are those beyond the key.
func (s *Spec) flags() uint16 {
	var flags uint16
	for _, f := range [...]struct {
		flag uint16
		set  bool
	}{
		{flagIPv6, s.IPv6}, {flagScaling, s.Scaling}, {flagSACK, s.SACK}, {flagTimestamps, s.Timestamps},
		{flagUnread, len(s.Unread) > 0}, {flagOptions, len(s.Options) > 0}, {flagBlocking, s.Blocking},
	} {
		if f.set {
			flags |= f.flag
		}
	}
	return flags
}

// Append appends the key in the form in which records begin, without what is
// not of the key. Different keys give different bytes.
func (k Key) Append(b []byte) []byte { return k.appendTo(b, 0) }

func (k Key) appendTo(b []byte, flags uint16) []byte {
	local, remote := k.Local.Addr(), k.Remote.Addr()
	localZone, remoteZone := local.Zone(), remote.Zone()
	if localZone != "" {
		flags |= flagLocalZone
	}
	if remoteZone != "" {
		flags |= flagRemoteZone
	}
	if !local.Is4() {
		flags |= flagLong
	}
	b = binary.LittleEndian.AppendUint16(b, flags)
	b = binary.LittleEndian.AppendUint16(b, k.Local.Port())
	b = binary.LittleEndian.AppendUint16(b, k.Remote.Port())
	for _, a := range [...]netip.Addr{local, remote} {
		if a.Is4() {
			four := a.As4()
			b = append(b, four[:]...)
			continue
		}
		sixteen := a.As16()
		b = append(b, sixteen[:]...)
	}
	for _, zone := range [...]string{localZone, remoteZone} {
		if zone != "" {
			b = append(append(b, byte(len(zone))), zone...)
		}
	}
	return b
}

// Begins reports whether a record is the key's, without a look at the rest of it.
func (k *Key) Begins(record []byte) bool {
	var room [KeyMost]byte
	want := k.Append(room[:0])
	if len(record) < len(want) {
		return false
	}
	flags := binary.LittleEndian.Uint16(record) & (flagLong | flagLocalZone | flagRemoteZone)
	return flags == binary.LittleEndian.Uint16(want) && string(record[2:len(want)]) == string(want[2:])
}

// Decode decodes a record, which is not trusted. It keeps nothing of b. Errors
// match host.ErrCorrupt.
func Decode(b []byte) (Spec, error) {
	r := recordReader{rest: b}
	var s Spec
	flags := r.key(&s.Key)
	s.IPv6, s.Scaling, s.SACK, s.Timestamps = flags&flagIPv6 != 0, flags&flagScaling != 0, flags&flagSACK != 0, flags&flagTimestamps != 0
	s.Blocking = flags&flagBlocking != 0
	s.SegmentMaximum = r.uint16()
	s.SendNext, s.ReceiveNext = Sequence(r.uint32()), Sequence(r.uint32())
	s.Window.SentAt = s.ReceiveNext - Sequence(r.varint32())
	s.Window.Send = r.varint32()
	s.Window.Maximum = s.Window.Send + r.varint32()
	s.Window.Receive = r.varint32()
	s.Window.Updated = s.ReceiveNext - Sequence(r.varint32())
	if s.Scaling {
		scales := r.bytes(1)[0]
		s.SendScale, s.ReceiveScale = scales&15, scales>>4
	}
	if s.Timestamps {
		s.Clock = Clock{Value: r.uint32(), At: time.Duration(r.varint())}
	}
	s.Tag = r.varint()
	if flags&flagUnread != 0 {
		s.Unread = bytes.Clone(r.run())
		r.refuse(len(s.Unread) == 0, "empty part is flagged")
	}
	if flags&flagOptions != 0 {
		s.Options = r.options()
	}
	r.refuse(len(r.rest) > 0, "bytes behind its end")
	if r.err == nil {
		r.refuse(true, s.invalid())
	}
	if r.err != nil {
		return Spec{}, fmt.Errorf("decode connection: %w: %w", r.err, host.ErrCorrupt)
	}
	return s, nil
}

// DecodeKey decodes the key at the beginning of a record, of which KeyMost
// bytes are enough. Errors match host.ErrCorrupt.
func DecodeKey(b []byte) (Key, error) {
	r := recordReader{rest: b}
	var k Key
	r.key(&k)
	if r.err == nil {
		r.refuse(true, k.invalid())
	}
	if r.err != nil {
		return Key{}, fmt.Errorf("decode key of connection: %w: %w", r.err, host.ErrCorrupt)
	}
	return k, nil
}

// recordReader takes a record apart. After the first error all it gives is zero.
type recordReader struct {
	rest []byte
	err  error
}

var errCut = errors.New("record ends early")

// zeros are what a reader gives after an error.
var zeros [16]byte

// refuse sets the error, unless there is one or there is no cause.
func (r *recordReader) refuse(is bool, cause string) {
	if is && r.err == nil && cause != "" {
		r.err = errors.New(cause)
	}
}

// bytes takes n bytes, at most 16 if the record has no more.
func (r *recordReader) bytes(n int) []byte {
	if r.err == nil && len(r.rest) < n {
		r.err = errCut
	}
	if r.err != nil {
		r.rest = nil
		return zeros[:min(n, len(zeros))]
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *recordReader) uint16() uint16 { return binary.LittleEndian.Uint16(r.bytes(2)) }
func (r *recordReader) uint32() uint32 { return binary.LittleEndian.Uint32(r.bytes(4)) }

func (r *recordReader) varint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || n > 1 && r.rest[n-1] == 0 {
		r.refuse(true, "number is cut, too long or not the shortest")
		r.rest = nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *recordReader) varint32() uint32 {
	v := r.varint()
	r.refuse(v > 1<<32-1, "number above 32 bits")
	return uint32(v)
}

// run takes a length and as many bytes.
func (r *recordReader) run() []byte {
	n := r.varint()
	if n > uint64(len(r.rest)) {
		r.refuse(true, errCut.Error())
		r.rest = nil
		return nil
	}
	return r.bytes(int(n))
}

func (r *recordReader) key(k *Key) (flags uint16) {
	flags = r.uint16()
	r.refuse(flags&^flagsKnown != 0, "unknown flags")
	localPort, remotePort := r.uint16(), r.uint16()
	local, remote := r.address(flags), r.address(flags)
	if flags&flagLocalZone != 0 {
		local = local.WithZone(r.zone())
	}
	if flags&flagRemoteZone != 0 {
		remote = remote.WithZone(r.zone())
	}
	r.refuse(flags&flagLong == 0 && flags&(flagLocalZone|flagRemoteZone) != 0, "zone of an IPv4 address")
	*k = Key{netip.AddrPortFrom(local, localPort), netip.AddrPortFrom(remote, remotePort)}
	return flags
}

func (r *recordReader) address(flags uint16) netip.Addr {
	if flags&flagLong == 0 {
		return netip.AddrFrom4([4]byte(r.bytes(4)))
	}
	return netip.AddrFrom16([16]byte(r.bytes(16)))
}

func (r *recordReader) zone() string {
	n := int(r.bytes(1)[0])
	if n == 0 || n > zoneMost {
		r.refuse(true, "zone without or with too many bytes")
		return ""
	}
	zone := r.bytes(n)
	if r.err != nil {
		return ""
	}
	return string(zone)
}

func (r *recordReader) options() socket.Options {
	n := r.varint()
	if n == 0 || n > optionsMost || n > uint64(len(r.rest)/optionLeast) {
		r.refuse(true, "number of options")
		return nil
	}
	all := make(socket.Options, 0, n)
	for range n {
		level, name := r.varint32(), r.varint32()
		all = append(all, socket.Option{Level: int(level), Name: int(name), Value: bytes.Clone(r.run())})
	}
	return all
}

package segment

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"torpor/socket"
)

var (
	key4 = socket.Key{Local: netip.MustParseAddrPort("192.0.2.1:80"), Remote: netip.MustParseAddrPort("192.0.2.2:40000")}
	key6 = socket.Key{Local: netip.MustParseAddrPort("[2001:db8::1]:80"), Remote: netip.MustParseAddrPort("[2001:db8::2]:40000")}
)

func turned(k socket.Key) socket.Key { return socket.Key{Local: k.Remote, Remote: k.Local} }

// packet is an answer with its checksums taken as they are.
func packet(k socket.Key, timestamps bool) []byte {
	a := Answer{Key: k, Seq: 1, Ack: 0xfffffffe, Window: 512, TrafficClass: 0x28, Timestamps: timestamps, Timestamp: 7, Echo: 9}
	return a.AppendTo(nil)
}

func TestAnswerIsParsed(t *testing.T) {
	for _, k := range []socket.Key{key4, key6} {
		for _, timestamps := range []bool{false, true} {
			b := packet(k, timestamps)
			want := Segment{Key: turned(k), Seq: 1, Ack: 0xfffffffe, Flags: ACK, Window: 512}
			if timestamps {
				want.HasTimestamps, want.Timestamp, want.Echo = true, 7, 9
			}
			got, err := Parse(b, len(b))
			if err != nil || got != want {
				t.Errorf("%+v, %v, want %+v", got, err, want)
			}
			ipBytes := v6Bytes
			if k.Local.Addr().Is4() {
				ipBytes = v4Bytes
				if fold(sum(b[:v4Bytes])) != 0xffff {
					t.Error("checksum of the IP header is wrong")
				}
			}
			tcp := b[ipBytes:]
			if total := sumOf(k.Local.Addr()) + sumOf(k.Remote.Addr()) + protoTCP + uint32(len(tcp)); fold(sum(tcp)+total) != 0xffff {
				t.Error("checksum of TCP is wrong")
			}
		}
	}
}

// extended puts extension headers between the headers of IPv6 and TCP.
func extended(kinds []byte, headers ...[]byte) []byte {
	b := packet(key6, true)
	all := slices.Concat(headers...)
	out := slices.Concat(b[:v6Bytes], all, b[v6Bytes:])
	out[6] = kinds[0]
	at := v6Bytes
	for i, h := range headers {
		out[at] = protoTCP
		if i+1 < len(kinds) {
			out[at] = kinds[i+1]
		}
		at += len(h)
	}
	binary.BigEndian.PutUint16(out[4:], uint16(len(out)-v6Bytes))
	return out
}

func changed(b []byte, change func([]byte)) []byte {
	b = slices.Clone(b)
	change(b)
	return b
}

func TestParse(t *testing.T) {
	v4, v6 := packet(key4, true), packet(key6, true)
	v4Options := slices.Concat(v4[:v4Bytes], make([]byte, 8), v4[v4Bytes:])
	v4Options[0] = 4<<4 | 7
	binary.BigEndian.PutUint16(v4Options[2:], uint16(len(v4Options)))
	total := func(b []byte, n uint16) []byte {
		return changed(b, func(b []byte) { binary.BigEndian.PutUint16(b[2:], n) })
	}
	payload := func(n uint16) []byte {
		return changed(v6, func(b []byte) { binary.BigEndian.PutUint16(b[4:], n) })
	}
	eight := make([]byte, 8)
	long := append([]byte{0, 2}, make([]byte, 22)...)
	for _, c := range []struct {
		name      string
		packet    []byte
		lenBytes  int // 0: that of packet
		dataBytes int
		want      error
	}{
		{"IPv4", v4, 0, 0, nil},
		{"IPv4 with padding", append(slices.Clone(v4), 0, 0), 0, 0, nil},
		{"IPv4 with options", v4Options, 0, 0, nil},
		{"IPv4, copy cut off", total(v4, 1500), 1500, 1448, nil},
		{"IPv4, joined to the limit", total(v4, 65535), 65535, 65483, nil},
		{"IPv4, joined beyond it", total(v4, 0), 180052, 180000, nil},
		{"IPv4, without the last option", v4[:44], len(v4), 0, nil},
		{"IPv4 without all of TCP", v4[:39], len(v4), 0, ErrTruncated},
		{"IPv4 without all of its header", v4[:19], len(v4), 0, ErrTruncated},
		{"IPv4 that is too short for TCP", total(v4, 39), 0, 0, ErrMalformed},
		{"IPv4 with a total length that lies", v4, len(v4) - 1, 0, ErrMalformed},
		{"IPv4 with a header of 16 bytes", changed(v4, func(b []byte) { b[0] = 4<<4 | 4 }), 0, 0, ErrMalformed},
		{"IPv4, first fragment", changed(v4, func(b []byte) { b[6] = 0x20 }), 0, 0, ErrFragment},
		{"IPv4, last fragment", changed(v4, func(b []byte) { b[7] = 1 }), 0, 0, ErrFragment},
		{"IPv4, UDP", changed(v4, func(b []byte) { b[9] = 17 }), 0, 0, ErrNotTCP},
		{"TCP header of 16 bytes", changed(v4, func(b []byte) { b[32] = 4 << 4 }), 0, 0, ErrMalformed},
		{"TCP header longer than the packet", changed(v4, func(b []byte) { b[32] = 15 << 4 }), 0, 0, ErrMalformed},
		{"IPv6", v6, 0, 0, nil},
		{"IPv6, copy cut off", payload(1032), 1072, 1000, nil},
		{"IPv6, joined beyond the limit", payload(0), 180072, 180000, nil},
		{"IPv6 with hop-by-hop and destination options", extended([]byte{0, 60}, eight, long), 0, 0, nil},
		{"IPv6 with a routing header and AH", extended([]byte{43, 51}, long, eight), 0, 0, nil},
		{"IPv6, atomic fragment", extended([]byte{44}, eight), 0, 0, nil},
		{"IPv6, first fragment", extended([]byte{44}, []byte{0, 0, 0, 1, 0, 0, 0, 0}), 0, 0, ErrFragment},
		{"IPv6, later fragment", extended([]byte{44}, []byte{0, 0, 1, 0, 0, 0, 0, 0}), 0, 0, ErrFragment},
		{"IPv6, extension beyond the packet", extended([]byte{0}, []byte{0, 255, 0, 0, 0, 0, 0, 0}), 0, 0, ErrMalformed},
		{"IPv6, extension cut off", extended([]byte{0}, long)[:60], 96, 0, ErrTruncated},
		{"IPv6, UDP", changed(v6, func(b []byte) { b[6] = 17 }), 0, 0, ErrNotTCP},
		{"IPv6, no next header", changed(v6, func(b []byte) { b[6] = 59 }), 0, 0, ErrNotTCP},
		{"version 5", []byte{5 << 4}, 0, 0, ErrNotTCP},
		{"nothing", nil, 0, 0, ErrTruncated},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := c.lenBytes
			if n == 0 {
				n = len(c.packet)
			}
			s, err := Parse(c.packet, n)
			if !errors.Is(err, c.want) || err == nil && (s.DataBytes != c.dataBytes || s.Local.Port() != 40000 || s.Ack != 0xfffffffe) {
				t.Errorf("%+v, %v, want %v with %d bytes", s, err, c.want, c.dataBytes)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, b := range [][]byte{packet(key4, true), packet(key6, false), extended([]byte{0, 43}, make([]byte, 8), make([]byte, 16))} {
		f.Add(b, len(b))
	}
	f.Fuzz(func(t *testing.T, b []byte, lenBytes int) {
		lenBytes = max(lenBytes, len(b))
		exact := append(make([]byte, 0, len(b)), b...) // reading behind it would panic
		s, err := Parse(exact[:len(b):len(b)], lenBytes)
		if err != nil {
			if s != (Segment{}) {
				t.Errorf("%v, and %+v", err, s)
			}
			return
		}
		if s.DataBytes < 0 || s.DataBytes > lenBytes || !s.Local.IsValid() || !s.Remote.IsValid() {
			t.Errorf("%+v of %d bytes", s, lenBytes)
		}
		Judge(&socket.Spec{Key: s.Key}, &s, 0)
	})
}

func BenchmarkParseAndJudge(b *testing.B) {
	p := packet(key4, true)
	s := spec()
	b.ReportAllocs()
	for b.Loop() {
		seg, err := Parse(p, len(p))
		if err != nil {
			b.Fatal(err)
		}
		Judge(s, &seg, 0)
	}
}

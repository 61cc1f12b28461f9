package socket

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"torpor/host"
	"torpor/kernel/socket"
)

var update = flag.Bool("update", false, "write golden files")

var equalSpecs = cmp.Options{cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty()}

// plain is an ordinary idle connection.
func plain() Spec {
	return Spec{
		Key:      Key{netip.MustParseAddrPort("10.88.0.2:8080"), netip.MustParseAddrPort("203.0.113.7:51234")},
		SendNext: 0x89abcdef, ReceiveNext: 0x01234567,
		Window:  Window{SentAt: 0x01234500, Send: 64256, Maximum: 65280, Receive: 65152, Updated: 0x01234567},
		Scaling: true, SendScale: 7, ReceiveScale: 8, SegmentMaximum: 1460, SACK: true,
		Timestamps: true, Clock: Clock{Value: 3_000_000_000, At: 123_456_789_012_345}, Tag: 77,
	}
}

// full has something in every part.
func full() Spec {
	s := plain()
	s.Key = Key{netip.MustParseAddrPort("[fe80::1%eth0]:443"), netip.MustParseAddrPort("[fe80::2%17]:65535")}
	s.IPv6 = true
	s.Window = Window{SentAt: s.ReceiveNext + 1, Send: math.MaxUint32, Maximum: 1, Receive: 1 << 30, Updated: s.ReceiveNext - 1<<31}
	s.Tag = math.MaxUint64
	s.Unread = []byte("GET / HTTP/1.1\r\n")
	s.Options = socket.Options{
		{Level: unix.SOL_SOCKET, Name: unix.SO_KEEPALIVE, Value: []byte{1}},
		{Level: unix.IPPROTO_TCP, Name: unix.TCP_CONGESTION, Value: []byte("reno")},
		{Level: unix.IPPROTO_IPV6, Name: unix.IPV6_TCLASS, Value: nil},
	}
	return s
}

// mapped is a connection of IPv4 in a socket of IPv6, with as little as can be.
func mapped() Spec {
	return Spec{Key: Key{netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")}, IPv6: true}
}

// TestGoldenRecords keeps the records of version 1 of the socket image readable.
func TestGoldenRecords(t *testing.T) {
	path := filepath.Join("testdata", "records-1.golden")
	specs := []Spec{plain(), full(), mapped()}
	var text strings.Builder
	for i := range specs {
		text.WriteString(hex.EncodeToString(specs[i].Append(nil)) + "\n")
	}
	if *update {
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(golden), text.String()); diff != "" {
		t.Errorf("records are not those of version 1: raise the version of the socket image (-want +got):\n%s", diff)
	}
	for i, line := range strings.Fields(string(golden)) {
		b, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(specs[i], got, equalSpecs); diff != "" {
			t.Errorf("record %d (-want +got):\n%s", i, diff)
		}
		if key, err := DecodeKey(b[:min(len(b), KeyMost)]); err != nil || key != specs[i].Key {
			t.Errorf("key of record %d: %v, %v", i, key, err)
		}
		for j := range specs {
			if begins := specs[j].Key.Begins(b); begins != (i == j) {
				t.Errorf("record %d begins with key %d: %v", i, j, begins)
			}
		}
	}
}

func TestRecordsAreSmall(t *testing.T) {
	s := plain()
	s.Tag = 1 << 40
	t.Logf("%d bytes", len(s.Append(nil)))
	if n := len(s.Append(nil)); n > 56 {
		t.Errorf("an ordinary connection takes %d bytes", n)
	}
	s.Window = Window{SentAt: 1 << 31, Send: 1 << 30, Maximum: 1<<30 - 1, Receive: 1 << 30, Updated: 1 << 31}
	s.Clock.At, s.Tag = math.MaxInt64>>8, 1<<48
	if n := len(s.Append(nil)); n > 72 {
		t.Errorf("a connection of IPv4 takes %d bytes", n)
	}
}

func TestInvalidSpecs(t *testing.T) {
	for name, spoil := range map[string]func(*Spec){
		"no address":      func(s *Spec) { s.Local = netip.AddrPort{} },
		"unspecified":     func(s *Spec) { s.Remote = netip.MustParseAddrPort("0.0.0.0:1") },
		"multicast":       func(s *Spec) { s.Remote = netip.MustParseAddrPort("224.0.0.1:1") },
		"not unmapped":    func(s *Spec) { s.IPv6, s.Remote = true, netip.MustParseAddrPort("[::ffff:1.2.3.4]:1") },
		"families":        func(s *Spec) { s.IPv6, s.Remote = true, netip.MustParseAddrPort("[2001:db8::1]:1") },
		"IPv4 socket":     func(s *Spec) { *s = full(); s.IPv6, s.Options = false, nil },
		"port":            func(s *Spec) { s.Local = netip.AddrPortFrom(s.Local.Addr(), 0) },
		"zone":            func(s *Spec) { *s = full(); s.Local = netip.MustParseAddrPort("[fe80::1%abcdefghijklmnop]:1") },
		"scale":           func(s *Spec) { s.SendScale = 15 },
		"other scale":     func(s *Spec) { s.ReceiveScale = 15 },
		"option":          func(s *Spec) { s.Options = socket.Options{{Level: unix.IPPROTO_IPV6, Name: unix.IPV6_TCLASS}} },
		"option's length": func(s *Spec) { s.Options = socket.Options{{Level: 1, Name: unix.SO_KEEPALIVE, Value: make([]byte, 5)}} },
		"options":         func(s *Spec) { s.Options = make(socket.Options, optionsMost+1) },
		"unread":          func(s *Spec) { s.Unread = make([]byte, UnreadMost+1) },
		"clock":           func(s *Spec) { s.Clock.At = -1 },
	} {
		s := plain()
		spoil(&s)
		if err := s.Validate(); !errors.Is(err, host.ErrInvalid) {
			t.Errorf("%s: validated: %v", name, err)
		}
		if s.Local.IsValid() {
			if _, err := Decode(s.Append(nil)); !errors.Is(err, host.ErrCorrupt) {
				t.Errorf("%s: decoded: %v", name, err)
			}
		}
	}
	for name, spoil := range map[string]func(*Spec){
		"scale without scaling":    func(s *Spec) { s.Scaling = false },
		"clock without timestamps": func(s *Spec) { s.Timestamps = false },
	} {
		s := plain()
		spoil(&s)
		if err := s.Validate(); !errors.Is(err, host.ErrInvalid) {
			t.Errorf("%s: validated: %v", name, err)
		}
	}
}

// TestDamagedRecords cuts records and flips their bits: what is decoded is
// another Spec or an error, and never the same one.
func TestDamagedRecords(t *testing.T) {
	for _, s := range []Spec{plain(), full(), mapped()} {
		good := s.Append(nil)
		for n := range good {
			if _, err := Decode(good[:n]); !errors.Is(err, host.ErrCorrupt) {
				t.Errorf("%d of %d bytes: %v", n, len(good), err)
			}
			for bit := range 8 {
				b := bytes.Clone(good)
				b[n] ^= 1 << bit
				got, err := Decode(b)
				if err != nil && !errors.Is(err, host.ErrCorrupt) {
					t.Errorf("bit %d of byte %d: %v", bit, n, err)
				}
				if err == nil && cmp.Equal(s, got, equalSpecs) {
					t.Errorf("bit %d of byte %d means nothing", bit, n)
				}
			}
		}
		if _, err := Decode(append(good, 0)); !errors.Is(err, host.ErrCorrupt) {
			t.Errorf("a byte more: %v", err)
		}
	}
}

// FuzzDecode checks that whatever is decoded is valid and has no other record.
func FuzzDecode(f *testing.F) {
	for _, s := range []Spec{plain(), full(), mapped()} {
		f.Add(s.Append(nil))
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		key, keyErr := DecodeKey(b[:min(len(b), KeyMost)])
		s, err := Decode(b)
		if err != nil {
			if !errors.Is(err, host.ErrCorrupt) {
				t.Errorf("%v does not match %v", err, host.ErrCorrupt)
			}
			return
		}
		if keyErr != nil || key != s.Key {
			t.Errorf("key %v, %v; record of %v", key, keyErr, s.Key)
		}
		if !s.Key.Begins(b) {
			t.Errorf("%x does not begin with %v", b, s.Key)
		}
		if err := s.Validate(); err != nil {
			t.Errorf("decoded: %v", err)
		}
		if again := s.Append(nil); !bytes.Equal(again, b) {
			t.Errorf("%x is encoded as %x", b, again)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	s := plain()
	buf := make([]byte, 0, 100)
	b.ReportAllocs()
	for b.Loop() {
		buf = s.Append(buf[:0])
	}
}

func BenchmarkDecode(b *testing.B) {
	s := plain()
	record := s.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(record); err != nil {
			b.Fatal(err)
		}
	}
}

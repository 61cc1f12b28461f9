package imagefile

import (
	"bytes"
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"torpor/internal/kerneltest"
	kernel "torpor/kernel/socket"
	"torpor/socket"
)

var (
	update = flag.Bool("update", false, "write golden files")
	seed   = flag.Uint64("seed", 0, "of random tests; 0 chooses one")
)

func TestMain(m *testing.M) {
	if path := os.Getenv(workerVariable); path != "" {
		work(path)
		return
	}
	kerneltest.Main(m)
}

var equalSpecs = cmp.Options{cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty()}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// numbered returns one of many different connections.
func numbered(n int) *socket.Spec {
	return &socket.Spec{
		Key: socket.Key{Local: netip.MustParseAddrPort("10.88.0.2:8080"),
			Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(n>>24) + 1, byte(n >> 16), byte(n >> 8), byte(n)}), uint16(n%50000+1024))},
		SendNext: socket.Sequence(n * 7), ReceiveNext: socket.Sequence(n * 31),
		Window:  socket.Window{SentAt: socket.Sequence(n * 31), Send: 64256, Maximum: 65280, Receive: 65152, Updated: socket.Sequence(n * 31)},
		Scaling: true, SendScale: 7, ReceiveScale: 7, SegmentMaximum: 1460, SACK: true,
		Timestamps: true, Clock: socket.Clock{Value: uint32(n) * 77, At: 987654321 * time.Microsecond}, Tag: uint64(n),
	}
}

// random returns a connection with many shapes.
func random(r *rand.Rand, n int) *socket.Spec {
	s := numbered(n)
	switch r.IntN(4) {
	case 0:
		s.IPv6 = true
	case 1:
		s.IPv6 = true
		var b [16]byte
		b[0], b[1] = 0xfe, 0x80
		binary.BigEndian.PutUint64(b[8:], uint64(n))
		s.Remote = netip.AddrPortFrom(netip.AddrFrom16(b).WithZone("eth0"), 80)
		s.Local = netip.MustParseAddrPort("[2001:db8::1]:443")
	}
	if r.IntN(3) == 0 {
		s.Unread = make([]byte, r.IntN(300)+1)
		for i := range s.Unread {
			s.Unread[i] = byte(r.Uint32())
		}
	}
	if r.IntN(5) == 0 {
		s.Options = kernel.Options{{Level: 1, Name: 9, Value: []byte{1}}}
	}
	return s
}

func randomWindow(r *rand.Rand) socket.Window {
	return socket.Window{SentAt: socket.Sequence(r.Uint32()), Send: r.Uint32(), Maximum: r.Uint32(), Receive: r.Uint32(), Updated: socket.Sequence(r.Uint32())}
}

// generator prints its seed.
func generator(t testing.TB) *rand.Rand {
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed %d", n)
	return rand.New(rand.NewPCG(n, 1))
}

func newFile(t testing.TB) (*File, string) {
	path := filepath.Join(t.TempDir(), "sockets")
	f, err := Create(path)
	check(t, err)
	return f, path
}

// reopen closes and opens a file in which nothing is to be repaired.
func reopen(t testing.TB, f *File, path string) *File {
	t.Helper()
	check(t, f.Close())
	sound(t, path)
	f, r, err := Open(path)
	check(t, err)
	if len(r.Lost) > 0 || r.CutBytes > 0 || r.Repairs > 0 {
		t.Fatalf("opened with %+v", *r)
	}
	return f
}

// sound fails the test if the file has problems.
func sound(t testing.TB, path string) *Report {
	t.Helper()
	report, err := Check(path)
	check(t, err)
	if len(report.Problems) > 0 {
		t.Fatalf("problems: %v", report.Problems)
	}
	return report
}

// same fails the test if the file does not hold what the model does.
func same(t testing.TB, f *File, model map[socket.Key]*socket.Spec) {
	t.Helper()
	if f.Len() != len(model) {
		t.Fatalf("%d connections, want %d", f.Len(), len(model))
	}
	seen := map[socket.Key]bool{}
	for k := range f.All() {
		if seen[k] || model[k] == nil {
			t.Fatalf("%v is yielded twice or is not there", k)
		}
		seen[k] = true
	}
	if len(seen) != len(model) {
		t.Fatalf("%d of %d are yielded", len(seen), len(model))
	}
	for k, want := range model {
		got, err := f.Get(k)
		check(t, err)
		if bytes.Equal(want.Append(nil), got.Append(nil)) {
			continue // much faster than cmp
		}
		if diff := cmp.Diff(*want, got, equalSpecs); diff != "" {
			t.Fatalf("%v (-want +got):\n%s", k, diff)
		}
	}
}

package rawip

import (
	"errors"
	"net/netip"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"torpor/internal/kerneltest"
	"torpor/kernel/netns"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// TestSend sends where no way leads; what arrives is tested by socket/filter.
func TestSend(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS)
	path := filepath.Join(t.TempDir(), "ns")
	if err := netns.Ensure(path); err != nil {
		t.Fatal(err)
	}
	defer netns.Remove(path)
	var s *Sender
	if err := netns.Do(path, func() (err error) { s, err = Open(); return err }); err != nil {
		t.Fatal(err)
	}
	v4, v6 := make([]byte, 40), make([]byte, 60)
	v4[0], v6[0] = 4<<4|5, 6<<4
	for to, packet := range map[string][]byte{"192.0.2.1": v4, "2001:db8::1": v6} {
		if err := s.Send(packet, netip.MustParseAddr(to), 0); !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Errorf("send to %s: %v", to, err)
		}
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := s.Send(v4, netip.MustParseAddr("192.0.2.1"), 0); err == nil {
		t.Error("a closed sender sends")
	}
}

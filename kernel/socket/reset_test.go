package socket

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"torpor/internal/kerneltest"
)

// TestReset compares both kinds of connections that were reset.
func TestReset(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS)
	for name, reset := range map[string]func() (int, error){
		"by a peer": func() (int, error) {
			r, err := NewResetter()
			if err != nil {
				return -1, err
			}
			defer r.Close()
			fd, err := New(Kind{IPv4, Stream, TCP})
			if err == nil {
				err = r.Reset(fd, IPv4)
			}
			return fd, err
		},
		"by nobody": NewReset,
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, func() error {
				lo, err := netlink.LinkByName("lo")
				if err != nil {
					return err
				}
				if err := netlink.LinkSetUp(lo); err != nil {
					return err
				}
				fd, err := reset()
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				events, err := Poll(fd, unix.POLLIN|unix.POLLOUT|PeerClosed, 0)
				if err != nil {
					return err
				}
				if want := int16(unix.POLLIN | unix.POLLOUT | unix.POLLERR | unix.POLLHUP | unix.POLLRDHUP); int16(events) != want {
					t.Errorf("events are %#x, want %#x", events, want)
				}
				b := make([]byte, 1)
				if _, err := unix.Read(fd, b); !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("first read: %v", err)
				}
				if n, err := unix.Read(fd, b); n != 0 || err != nil {
					t.Errorf("second read: %d, %v", n, err)
				}
				if err := unix.Sendto(fd, b, unix.MSG_NOSIGNAL, nil); !errors.Is(err, unix.EPIPE) {
					t.Errorf("write: %v", err)
				}
				if _, err := unix.Getpeername(fd); !errors.Is(err, unix.ENOTCONN) {
					t.Errorf("peer: %v", err)
				}
				return nil
			})
		})
	}
}

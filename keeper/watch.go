package keeper

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"syscall"

	"torpor/checkpoint"
	"torpor/kernel/epoll"
)

// watch waits for something to arrive on a sleeping service's descriptors.
type watch struct {
	set  *epoll.Set
	stop chan struct{}
}

// startWatch watches the parked sockets, and what the service reads as its
// standard input. The first event is sent to packets.
func startWatch(h *checkpoint.Holder, spec *checkpoint.Spec, packets chan<- string, owner *sync.WaitGroup) (*watch, error) {
	set, err := epoll.NewSet()
	if err != nil {
		return nil, err
	}
	w := &watch{set: set, stop: make(chan struct{})}
	events, watched := map[int32]string{}, map[string]bool{}
	for i := range spec.Processes {
		for _, d := range spec.Processes[i].Descriptors {
			if watched[d.Target] || !wakes(d) || int(d.Slot) >= spec.Parked-spec.Suspended {
				continue // nginx's workers share their listening socket; the filter sees to what is suspended
			}
			event, err := w.add(h, d)
			if err != nil {
				set.Close()
				return nil, err
			}
			events[int32(d.Slot)], watched[d.Target] = event, true
		}
	}
	owner.Go(func() {
		slot, err := set.Wait()
		if err != nil {
			return // closed
		}
		select {
		case packets <- events[slot]:
		case <-w.stop:
		}
	})
	return w, nil
}

// wakes tells the descriptors whose events mean that somebody wants the
// service. Sockets that connect two of its own processes are quiet while it
// sleeps.
func wakes(d checkpoint.DescriptorSpec) bool {
	if strings.HasPrefix(d.Target, "socket:[") {
		return true
	}
	return d.FD == 0 && (strings.HasPrefix(d.Target, "pipe:[") || strings.HasPrefix(d.Target, "/dev/pts/"))
}

// add returns what an event on the descriptor means, in words.
func (w *watch) add(h *checkpoint.Holder, d checkpoint.DescriptorSpec) (string, error) {
	fd, err := h.Take(d.Slot)
	if err != nil {
		return "", err
	}
	defer syscall.Close(fd) // the holder keeps it open, so the set keeps it too
	return eventOn(fd), w.set.Add(fd, int32(d.Slot))
}

// eventOn says what an event on a parked descriptor means.
func eventOn(fd int) string {
	local, err := syscall.Getsockname(fd)
	if errors.Is(err, syscall.ENOTSOCK) {
		return "standard input" // the only one that is no socket
	}
	kind, _ := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	to := inetAddress(local)
	peer, err := syscall.Getpeername(fd)
	switch {
	case to == "":
		return "data on a socket that is not of IP" // Unix, netlink, vsock, ...
	case err == nil:
		return "packet on the connection with " + inetAddress(peer)
	case kind == syscall.SOCK_STREAM:
		return "connection to " + to
	}
	return "datagram for " + to
}

// inetAddress is ADDRESS:PORT, or empty for other families.
func inetAddress(a syscall.Sockaddr) string {
	switch a := a.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)).String()
	}
	return ""
}

// close ends the watch; nothing is sent to packets afterwards.
func (w *watch) close() {
	close(w.stop)
	w.set.Close()
}

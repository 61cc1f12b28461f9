package keeper

import (
	"fmt"
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
	targets, watched := map[int32]string{}, map[string]bool{}
	for i := range spec.Processes {
		for _, d := range spec.Processes[i].Descriptors {
			if watched[d.Target] || !wakes(d) {
				continue // nginx's workers share their listening socket
			}
			if err := w.add(h, d); err != nil {
				set.Close()
				return nil, err
			}
			targets[int32(d.Slot)], watched[d.Target] = d.Target, true
		}
	}
	owner.Go(func() {
		slot, err := set.Wait()
		if err != nil {
			return // closed
		}
		select {
		case packets <- fmt.Sprintf("packet on %s", targets[slot]):
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

func (w *watch) add(h *checkpoint.Holder, d checkpoint.DescriptorSpec) error {
	fd, err := h.Take(d.Slot)
	if err != nil {
		return err
	}
	defer syscall.Close(fd) // the holder keeps it open, so the set keeps it too
	return w.set.Add(fd, int32(d.Slot))
}

// close ends the watch; nothing is sent to packets afterwards.
func (w *watch) close() {
	close(w.stop)
	w.set.Close()
}

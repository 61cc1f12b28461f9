package socket

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torpor/internal/kerneltest"
	"torpor/internal/netlab"
	"torpor/kernel/netns"
)

// BenchmarkSuspend suspends, closes and restores connections, in batches.
func BenchmarkSuspend(b *testing.B) {
	kerneltest.Require(b, kerneltest.Root, kerneltest.NetNS)
	const count = 1000
	lab, err := netlab.New(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer lab.Close()
	var fds [count]int
	var suspender *Suspender
	err = netns.Do(lab.Here, func() (err error) {
		if suspender, err = NewSuspender(); err != nil {
			return err
		}
		l, err := net.Listen("tcp4", ":0")
		if err != nil {
			return err
		}
		defer l.Close()
		target := net.TCPAddr{IP: netlab.Here4.Addr().AsSlice(), Port: l.Addr().(*net.TCPAddr).Port}
		for i := range fds {
			var peer net.Conn
			err := netns.Do(lab.There, func() (err error) {
				peer, err = net.Dial("tcp4", target.String())
				return err
			})
			if err != nil {
				return err
			}
			b.Cleanup(func() { peer.Close() })
			c, err := l.Accept()
			if err != nil {
				return err
			}
			f, err := c.(*net.TCPConn).File()
			if err != nil {
				return err
			}
			if fds[i], err = unix.Dup(int(f.Fd())); err != nil {
				return err
			}
			f.Close()
			c.Close()
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	defer suspender.Close()
	var suspending, closing, restoring time.Duration
	n := 0
	err = netns.Do(lab.Here, func() error {
		for b.Loop() {
			begun := time.Now()
			all := suspender.Suspend(fds[:]...)
			read := time.Now()
			for i := range all {
				if all[i].Err != nil {
					return all[i].Err
				}
				unix.Close(fds[i])
			}
			closed := time.Now()
			for i := range all {
				if fds[i], err = Restore(all[i].Spec); err != nil {
					return err
				}
				if err := Resume(fds[i], all[i].Spec); err != nil {
					return err
				}
			}
			restoring += time.Since(closed)
			closing += closed.Sub(read)
			suspending += read.Sub(begun)
			n += count
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	b.ReportMetric(float64(suspending.Nanoseconds())/float64(n), "ns/suspend")
	b.ReportMetric(float64(closing.Nanoseconds())/float64(n), "ns/close")
	b.ReportMetric(float64(restoring.Nanoseconds())/float64(n), "ns/restore")
	b.ReportMetric(0, "ns/op")
}

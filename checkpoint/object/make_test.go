package object

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"torpor/kernel/socket"
)

// TestMakeLeavesNothing lets the last of many fail.
func TestMakeLeavesNothing(t *testing.T) {
	tr := newTransfer(t)
	tr.addEverything()
	tr.add(tr.from.openPath("/data/missing", unix.O_RDWR|unix.O_CREAT))
	tr.describe()
	c := newScratch(t)
	tr.makeEverything(c)
	before := openDescriptors(t)
	for range 3 {
		if fds, err := Make(c.Container, tr.dir, tr.specs, tr.options); fds != nil {
			t.Errorf("made %v", fds)
		} else {
			wantErrno(t, err, unix.ENOENT)
		}
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
}

// addService adds the open files of a typical service: 40 files and 10 sockets
// and counters.
func (tr *transfer) addService() {
	b, c := tr.t, tr.from
	b.Helper()
	for i := range 40 {
		name := "file" + itoa(i)
		check(b, os.WriteFile(filepath.Join(c.root, "data", name), nil, 0o644))
		tr.add(c.openPath("/data/"+name, unix.O_RDONLY))
	}
	for i := range 4 {
		tr.add(c.listenOn(unix.AF_INET, 0, netip.AddrPortFrom(loopback4, uint16(9000+i))))
	}
	x, y := c.pair(unix.SOCK_STREAM)
	tr.add(x)
	tr.add(y)
	udp := c.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	check(b, socket.Bind(udp, unix.AF_INET, netip.AddrPortFrom(loopback4, 9100)))
	tr.add(udp)
	for range 3 {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		check(b, err)
		tr.add(fd)
	}
}

func BenchmarkDescribe(b *testing.B) {
	tr := newTransfer(b)
	tr.addService()
	for b.Loop() {
		_, err := Describe(tr.from.Container, tr.dir, tr.open)
		check(b, err)
	}
}

func BenchmarkMake(b *testing.B) {
	tr := newTransfer(b)
	tr.addService()
	c := tr.from
	specs, err := Describe(c.Container, tr.dir, tr.open)
	check(b, err)
	for i := range specs {
		if specs[i].Kind == KindSocket { // its ports are free again
			unix.Close(tr.open[i].FD)
			tr.open[i].FD = -1
		}
	}
	for b.Loop() {
		fds, err := Make(c.Container, tr.dir, specs, MakeOptions{})
		check(b, err)
		b.StopTimer()
		for _, fd := range fds {
			unix.Close(fd)
		}
		b.StartTimer()
	}
}

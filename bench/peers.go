package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"torpor/internal/netlab"
	"torpor/kernel/inet"
	"torpor/kernel/netns"
	kernelsocket "torpor/kernel/socket"
	"torpor/socket"
	"torpor/socket/imagefile"
)

// peers are the other ends, on another machine. They too are suspended, or a
// million would need a million descriptors; nobody answers for them.
type peers struct {
	lab       *netlab.Lab
	image     *imagefile.File
	suspender *socket.Suspender
	most      int // descriptors at a time
	used      int // peers so far: each has an address and port of its own
	addresses int // of the machine so far
}

// peer is one of them while it has a socket.
type peer struct {
	number int
	fd     int
}

// Each address has ports 1024 to 61023; RFC 2544 keeps 198.18.0.0/15 for
// benchmarks.
const (
	firstPort      = 1024
	portsOfAddress = 60_000
)

func newPeers(lab *netlab.Lab, dir string) (*peers, error) {
	p := &peers{lab: lab}
	var err error
	if p.most, err = mostDescriptors(); err != nil {
		return nil, err
	}
	if p.image, err = imagefile.Create(filepath.Join(dir, "there.img")); err != nil {
		return nil, err
	}
	err = netns.Do(lab.There, func() (err error) { p.suspender, err = socket.NewSuspender(); return err })
	if err != nil {
		return nil, errors.Join(err, p.image.Close())
	}
	return p, netns.Do(lab.Here, func() error { return netlab.AddRoute(netip.MustParsePrefix("198.18.0.0/15")) })
}

func (p *peers) close() error { return errors.Join(p.suspender.Close(), p.image.Close()) }

// mostDescriptors raises the limit of descriptors as far as it goes, and returns
// how many connections with both ends fit.
func mostDescriptors() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	const others = 200
	return int(limit.Max-others) / 2, nil
}

func address(number int) netip.AddrPort {
	n := number / portsOfAddress
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n + 1)}), uint16(firstPort+number%portsOfAddress))
}

var serverAddress = netip.AddrPortFrom(netlab.Here4.Addr(), socketsPort)

// key is the connection as the server sees it.
func (e *peer) key() socket.Key { return socket.Key{Local: serverAddress, Remote: address(e.number)} }

// connect makes n connections.
func (p *peers) connect(n int) ([]*peer, error) {
	all := make([]*peer, n)
	err := netns.Do(p.lab.There, func() error {
		for ; p.addresses <= (p.used+n)/portsOfAddress; p.addresses++ {
			a := address(p.addresses * portsOfAddress).Addr()
			if err := netlab.AddAddress(netip.PrefixFrom(a, 32)); err != nil {
				return err
			}
		}
		for i := range all {
			var err error
			if all[i], err = open(p.used); err != nil {
				return err
			}
			p.used++
		}
		return nil
	})
	return all, err
}

func open(number int) (*peer, error) {
	fd, err := kernelsocket.New(kernelsocket.Kind{Domain: kernelsocket.IPv4, Type: kernelsocket.Stream, Protocol: kernelsocket.TCP})
	if err != nil {
		return nil, err
	}
	err = kernelsocket.Bind(fd, kernelsocket.IPv4, address(number))
	if err == nil {
		err = kernelsocket.Connect(fd, kernelsocket.IPv4, serverAddress)
	}
	if err != nil && !errors.Is(err, syscall.EINPROGRESS) {
		syscall.Close(fd)
		return nil, err
	}
	return &peer{number, fd}, nil
}

// drop ends connections.
func (p *peers) drop(all []*peer) {
	for _, e := range all {
		syscall.Close(e.fd)
	}
}

// suspend keeps the peers without sockets.
func (p *peers) suspend(all []*peer) error {
	fds := make([]int, len(all))
	for i, e := range all {
		fds[i] = e.fd
	}
	records := make([]*socket.Spec, len(all))
	for i, got := range p.suspender.Suspend(fds...) {
		if got.Err != nil {
			return fmt.Errorf("suspend peer %s: %w", address(all[i].number), got.Err)
		}
		records[i] = got.Spec
	}
	if err := p.image.AddAll(records); err != nil {
		return err
	}
	p.drop(all)
	return nil
}

// restore makes a peer's socket again.
func (p *peers) restore(number int) (*peer, error) {
	k := socket.Key{Local: address(number), Remote: serverAddress}
	record, err := p.image.Get(k)
	if err == nil {
		err = p.image.Remove(k)
	}
	if err != nil {
		return nil, err
	}
	e := &peer{number, -1}
	err = netns.Do(p.lab.There, func() error {
		if e.fd, err = socket.Restore(&record); err != nil {
			return err
		}
		return socket.Resume(e.fd, &record)
	})
	return e, err
}

// askLimitMs bounds the wait for an echo.
const askLimitMs = 10_000

// ask sends a random number and wants it back.
func (e *peer) ask() (time.Duration, error) {
	request := binary.LittleEndian.AppendUint64(nil, rand.Uint64())
	begun := time.Now()
	if _, err := syscall.Write(e.fd, request); err != nil {
		return 0, fmt.Errorf("ask: %w", err)
	}
	events, err := kernelsocket.Poll(e.fd, kernelsocket.Readable, askLimitMs)
	if err != nil || events == 0 {
		return 0, errors.Join(errWrongAnswer, err)
	}
	answer := make([]byte, 16)
	n, err := syscall.Read(e.fd, answer)
	took := time.Since(begun)
	if err != nil || string(answer[:max(n, 0)]) != string(request) {
		return 0, errors.Join(errWrongAnswer, err)
	}
	return took, nil
}

var errWrongAnswer = errors.New("ask: no answer, or a wrong one")

// kernelBytes is the memory of the kernel's own objects (Slab of meminfo).
func kernelBytes() (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for {
		var name string
		var kb int64
		if _, err := fmt.Fscanln(f, &name, &kb, new(string)); err != nil {
			return 0, fmt.Errorf("read memory of the kernel: %w", err)
		}
		if name == "Slab:" {
			return kb << 10, nil
		}
	}
}

// established counts the kernel's connections of a machine.
func established(namespace string) (int, error) {
	n := 0
	err := netns.Do(namespace, func() error {
		all, err := inet.ReadConnections(syscall.Gettid())
		for _, c := range all {
			if c.Established {
				n++
			}
		}
		return err
	})
	return n, err
}

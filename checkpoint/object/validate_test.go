package object

import (
	"encoding/json"
	"errors"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torpor/host"
	"torpor/kernel/eventfile"
	"torpor/kernel/socket"
)

// addEverything adds an open file of nearly every kind.
func (tr *transfer) addEverything() {
	t, c := tr.t, tr.from
	t.Helper()
	check(t, os.WriteFile(filepath.Join(c.root, "data", "file"), []byte("text"), 0o644))
	for _, flags := range []int{unix.O_RDWR, unix.O_RDONLY, unix.O_PATH} {
		tr.add(c.openPath("/data/file", flags))
	}
	tr.add(c.openPath("/dev/null", unix.O_RDWR))
	memory, err := unix.MemfdCreate("memory", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	check(t, err)
	write(t, memory, "content")
	tr.add(memory)
	var pipe [2]int
	check(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	write(t, pipe[1], "unread")
	tr.add(pipe[0])
	tr.add(pipe[1])
	twin, err := unix.Dup(pipe[1])
	check(t, err)
	tr.add(twin)
	for _, f := range []func() (int, error){
		eventfile.NewSet,
		func() (int, error) { return eventfile.NewCounter(3, true) },
		func() (int, error) { return eventfile.NewSignals(1) },
		func() (int, error) {
			return eventfile.NewTimer(eventfile.Timer{Clock: unix.CLOCK_REALTIME, At: time.Now().Add(time.Hour), Flags: 1, Ticks: 2})
		},
	} {
		fd, err := f()
		check(t, err)
		tr.add(fd)
	}
	var watches int
	c.do(func() (err error) {
		watches, err = eventfile.NewWatches([]eventfile.Watch{{Number: 1, Path: "/data", Mask: unix.IN_DELETE_SELF}, {Number: 7, Path: "/dev", Mask: unix.IN_CREATE}})
		return err
	})
	tr.add(watches)
	listener := c.listenOn(unix.AF_INET, 0, netip.AddrPortFrom(loopback4, 8100))
	client, server := c.connection(listener)
	write(t, client, "request")
	outside := c.listenOn(unix.AF_INET, 0, netip.AddrPortFrom(loopback4, 8101))
	defer unix.Close(outside)
	lost, peer := c.connection(outside)
	defer unix.Close(peer)
	udp := c.socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	check(t, socket.Bind(udp, unix.AF_INET6, netip.MustParseAddrPort("[::]:8102")))
	local := c.bindUnix(unix.SOCK_STREAM, "/data/everything")
	check(t, unix.Listen(local, 1))
	a, b := c.pair(unix.SOCK_DGRAM)
	write(t, a, "message")
	for _, fd := range []int{listener, client, server, lost, udp, local, a, b, c.socket(unix.AF_NETLINK, unix.SOCK_RAW, 0)} {
		tr.add(fd)
	}
}

// makeEverything makes the container ready for what addEverything adds.
func (tr *transfer) makeEverything(c *scratch) {
	tr.t.Helper()
	path := filepath.Join(c.root, "data", "file")
	check(tr.t, os.WriteFile(path, []byte("text"), 0o644))
	for i := range tr.specs {
		if f := tr.specs[i].File; f != nil && f.Fixed {
			check(tr.t, os.Chtimes(path, f.ModTime, f.ModTime))
		}
	}
}

// TestMakeAtOnce makes one description in several containers at the same time.
func TestMakeAtOnce(t *testing.T) {
	tr := newTransfer(t)
	tr.addEverything()
	tr.describe()
	type made struct {
		fds []int
		err error
	}
	results := make(chan made)
	for range 4 {
		c := newScratch(t)
		tr.makeEverything(c)
		go func() {
			fds, err := Make(c.Container, tr.dir, tr.specs, tr.options)
			results <- made{fds, err}
		}()
	}
	for range 4 {
		r := <-results
		if r.err != nil {
			t.Error(r.err)
		}
		tr.fds = append(tr.fds, r.fds...)
	}
}

func TestValidate(t *testing.T) {
	valid := func() []Spec {
		pipe := func() *PipeSpec { return &PipeSpec{CapacityBytes: 4096} }
		pair := func(peer int) *SocketSpec {
			return &SocketSpec{Domain: unix.AF_UNIX, Type: unix.SOCK_STREAM, State: SocketConnected, Peer: peer}
		}
		return []Spec{
			{Kind: KindFile, Same: -1, File: &FileSpec{Path: "/data/x"}},
			{Kind: KindFile, Same: 0},
			{Kind: KindPipe, Same: -1, Pipe: pipe()},
			{Kind: KindSocket, Same: -1, Socket: pair(4)},
			{Kind: KindSocket, Same: -1, Socket: pair(3)},
			{Kind: KindContent, Same: -1, Content: &ContentSpec{SizeBytes: 3}},
			{Kind: KindTimer, Same: -1, Timer: &TimerSpec{Clock: 1}},
			{Kind: KindWatches, Same: -1, Watches: []WatchSpec{{Number: 1, Path: "/", Mask: 2}}},
			{Kind: KindSocket, Same: -1, Socket: &SocketSpec{Domain: unix.AF_INET, Type: unix.SOCK_STREAM, Protocol: 6, State: SocketListening,
				Peer: -1, Local: netip.AddrPortFrom(loopback4, 1)}},
			{Kind: KindSocket, Same: -1, Socket: &SocketSpec{Domain: unix.AF_UNIX, Type: unix.SOCK_STREAM, State: SocketListening, Peer: -1,
				Name: []byte("/s"), File: &SocketFileSpec{}}},
		}
	}
	check(t, Validate(valid()))
	for name, damage := range map[string]func(s []Spec){
		"kind":              func(s []Spec) { s[0].Kind = "other" },
		"no file":           func(s []Spec) { s[0].File = nil },
		"relative path":     func(s []Spec) { s[0].File.Path = "data" },
		"path with dots":    func(s []Spec) { s[0].File.Path = "/data/../x" },
		"path with zero":    func(s []Spec) { s[0].File.Path = "/data\x00" },
		"offset":            func(s []Spec) { s[0].File.OffsetBytes = -1 },
		"create":            func(s []Spec) { s[0].Flags = unix.O_CREAT },
		"truncate":          func(s []Spec) { s[0].Flags = unix.O_TRUNC },
		"access mode":       func(s []Spec) { s[0].Flags = unix.O_ACCMODE },
		"signal":            func(s []Spec) { s[0].Signal = 65 },
		"flock":             func(s []Spec) { s[0].FlockMode = unix.LOCK_UN },
		"range":             func(s []Spec) { s[0].Ranges = []RangeSpec{{Start: 5, End: 5}} },
		"same as itself":    func(s []Spec) { s[1].Same = 1 },
		"same as later":     func(s []Spec) { s[1].Same = 2 },
		"same as same":      func(s []Spec) { s[2].Same = 1 },
		"same as less":      func(s []Spec) { s[1].Same = -2 },
		"no pipe":           func(s []Spec) { s[2].Pipe = nil },
		"capacity":          func(s []Spec) { s[2].Pipe.CapacityBytes = math.MaxInt },
		"pipe's id":         func(s []Spec) { s[2].Pipe.ID = -1 },
		"peer itself":       func(s []Spec) { s[3].Socket.Peer = 3 },
		"peer outside":      func(s []Spec) { s[3].Socket.Peer = 100 },
		"peer no socket":    func(s []Spec) { s[3].Socket.Peer = 0 },
		"peer of another":   func(s []Spec) { s[3].Socket.Type = unix.SOCK_DGRAM },
		"peer not mutual":   func(s []Spec) { s[4].Socket.State, s[4].Socket.Peer = SocketReset, -1 },
		"no peer":           func(s []Spec) { s[3].Socket.Peer, s[4].Socket.Peer = -1, -1 },
		"two messages":      func(s []Spec) { s[3].Socket.Unread = make([][]byte, 2) },
		"shutdown":          func(s []Spec) { s[3].Socket.Shutdown = 4 },
		"option":            func(s []Spec) { s[3].Socket.Options = socket.Options{{Level: 1, Name: unix.SO_ATTACH_FILTER}} },
		"long option":       func(s []Spec) { s[3].Socket.Options = socket.Options{{Level: 1, Name: 2, Value: make([]byte, 99)}} },
		"no content":        func(s []Spec) { s[5].Content = nil },
		"content's id":      func(s []Spec) { s[5].Content.ID = -1 },
		"content's size":    func(s []Spec) { s[5].Content.SizeBytes = -1 },
		"content's mode":    func(s []Spec) { s[5].Content.Mode = unix.S_IFCHR },
		"seals":             func(s []Spec) { s[5].Content.Seals = 1 << 20 },
		"clock":             func(s []Spec) { s[6].Timer.Clock = 99 },
		"time of day":       func(s []Spec) { s[6].Timer.At = time.Now() },
		"interval":          func(s []Spec) { s[6].Timer.Interval = -1 },
		"watch number":      func(s []Spec) { s[7].Watches[0].Number = 1 << 30 },
		"watch twice":       func(s []Spec) { s[7].Watches = append(s[7].Watches, s[7].Watches[0]) },
		"watch's path":      func(s []Spec) { s[7].Watches[0].Path = "x" },
		"no local address":  func(s []Spec) { s[8].Socket.Local = netip.AddrPort{} },
		"address of domain": func(s []Spec) { s[8].Socket.Local = netip.MustParseAddrPort("[::1]:1") },
		"listening with":    func(s []Spec) { s[8].Socket.Unread = [][]byte{{1}} },
		"raw":               func(s []Spec) { s[8].Socket.Type = unix.SOCK_RAW },
		"domain":            func(s []Spec) { s[8].Socket.Domain = unix.AF_PACKET },
		"no socket file":    func(s []Spec) { s[9].Socket.File = nil },
		"relative name":     func(s []Spec) { s[9].Socket.Name = []byte("s") },
		"long name":         func(s []Spec) { s[9].Socket.Name = make([]byte, 200) },
	} {
		specs := valid()
		damage(specs)
		if err := Validate(specs); !errors.Is(err, host.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	large := valid()
	chunk := make([]byte, contentMost/64)
	for range 65 {
		large[2].Pipe.Unread = append(large[2].Pipe.Unread, chunk)
	}
	if err := Validate(large); !errors.Is(err, host.ErrCorrupt) {
		t.Errorf("too much unread data: %v", err)
	}
}

func seeds(f *testing.F) (dir string) {
	f.Helper()
	tr := newTransfer(f)
	tr.addEverything()
	tr.describe()
	b, err := json.Marshal(tr.specs)
	check(f, err)
	f.Add(b)
	for i := range tr.specs {
		if tr.specs[i].Socket != nil && tr.specs[i].Socket.Peer >= 0 || tr.specs[i].Same >= 0 {
			continue
		}
		b, err := json.Marshal(tr.specs[i : i+1])
		check(f, err)
		f.Add(b)
	}
	return tr.dir
}

func FuzzValidate(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		var specs []Spec
		if json.Unmarshal(data, &specs) != nil {
			return
		}
		if err := Validate(specs); err != nil && !errors.Is(err, host.ErrCorrupt) {
			t.Errorf("validate: %v", err)
		}
	})
}

// FuzzMake makes what is valid in a container, which must not take long and
// must leave nothing open.
func FuzzMake(f *testing.F) {
	dir := seeds(f)
	c := newScratch(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		var specs []Spec
		if json.Unmarshal(data, &specs) != nil || Validate(specs) != nil {
			return
		}
		tryMake(t, c, dir, specs)
	})
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(entries)
}

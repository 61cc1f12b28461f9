package checkpoint

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"torpor/checkpoint/object"
	"torpor/checkpoint/unique"
	"torpor/host"
	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
)

var update = flag.Bool("update", false, "write golden files")

// exampleSpec has a value in every member.
func exampleSpec() *Spec {
	creds := Credentials{UIDs: [4]uint32{1, 2, 3, 4}, GIDs: [4]uint32{5, 6, 7, 8}, Groups: []uint32{9, 10},
		Caps: proc.Capabilities{Inheritable: 1, Permitted: 2, Effective: 3, Bounding: 4, Ambient: 5}, SecureBits: 1, NoNewPrivs: true, Filters: [][]byte{{1, 2, 3, 4, 5, 6, 7, 8}}}
	thread := ThreadSpec{TID: 2, Comm: "main", Regs: ptrace.Regs{Rip: 0x401000, Rsp: 0x7fff00000000}, XState: []byte{1, 2, 3}, SigMask: 1 << 63,
		AltStack: AltStack{Addr: 0x1000, Flags: 2, LenBytes: 8192}, Rseq: ptrace.Rseq{Addr: 0x2000, LenBytes: 32, Signature: 0x53053053},
		RobustList: 0x3000, ClearTID: 0x4000, DeathSignal: 9, Creds: creds, Scheduling: proc.Scheduling{Policy: 1, Nice: -5, Priority: 2},
		TimerSlack: 50000, Pending: []ptrace.SigInfo{{10}}}
	thread.Scheduling.CPUs.Set(1)
	second := thread
	second.TID, second.Comm = 5, "worker"
	parent := ProcessSpec{PID: 2, Session: 2, Group: 2, Layout: proc.Layout{StartCode: 0x400000, EndCode: 0x402000, StartStack: 0x7fff00000000},
		VMAs: []VMASpec{
			{Start: 0x400000, End: 0x402000, Prot: 5, Kind: VMAFile, File: 1, Offset: 4096, Name: "/bin/program"},
			{Start: 0x500000, End: 0x600000, Prot: 3, Kind: VMAImage, File: NoSlot, Offset: 1 << 30, Lock: true, NoReserve: true, Advice: []int{10},
				Guards: []PageRun{{0x510000, 0x511000}}, Name: "[heap]"},
			{Start: 0x7ffe00000000, End: 0x7fff00001000, Prot: 3, Kind: VMAStack, File: NoSlot, Used: []PageRun{{0x7fff00000000, 0x7fff00001000}}},
			{Start: 0x700000000000, End: 0x700000002000, Prot: 5, Kind: VMASpecial, File: NoSlot, Name: "[vdso]"},
		},
		Brk: 0x600000, Auxv: []byte{1}, Call: 0x700000000100, Exe: 1, Cwd: 2, Root: NoSlot, Umask: 0o22,
		Descriptors: []DescriptorSpec{
			{FD: 0, Slot: 3, CloseOnExec: true, Target: "socket:[7]", Connected: true, Owner: proc.Owner{Kind: 1, ID: 2}},
			{FD: 4, Slot: 4, Target: "anon_inode:[eventpoll]", Signals: []EventSpec{{FD: 9, Events: 1, Data: 1 << 63}}},
		},
		SigActions: []SigAction{{Signal: 10, Handler: 0x401100, Flags: 0x14000004, Restorer: 0x401200, Mask: 1}},
		Timers:     []TimerSpec{{ID: 3, Clock: 1, Signal: 34, Notify: 4, TID: 5, Value: 42, Spec: [4]int64{1, 2, 3, 4}}},
		ITimers:    [3]ITimer{{1, 2, 3, 4}}, Pending: []ptrace.SigInfo{{12}}, OOMScoreAdj: -3, Personality: 0x40000, Dumpable: true, NoHugePages: true,
		ChildSubreaper: true, Threads: []ThreadSpec{thread, second}}
	parent.Limits[7] = proc.Limit{Soft: 1024, Hard: ^uint64(0)}
	child := ProcessSpec{PID: 7, Parent: 2, Session: 2, Group: 7, Exe: 1, Cwd: 2, Root: 5, Threads: []ThreadSpec{{TID: 7, XState: []byte{9}}}}
	return &Spec{Created: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Boot: "0d5a2b1c", Kernel: "Linux version 6.18", HolderPID: 1, Parked: 6, Pages: 0,
		Image:     ImageIdentity{Dev: 0xfe00, Inode: 77, LenBytes: 1 << 40, MTime: 1, CTime: 2},
		Processes: []ProcessSpec{parent, child},
		Verify:    []Fingerprint{{Process: 1, Start: 0x500000, Hashes: []byte{1, 2, 3, 4, 5, 6, 7, 8}}}}
}

// exampleReady also has what only ready checkpoints and those that stand on one
// have.
func exampleReady() *Spec {
	s := exampleSpec()
	p := &s.Processes[0]
	p.VMAs = append(p.VMAs, VMASpec{Start: 0x900000, End: 0xa00000, Prot: 3, Kind: VMABase, File: 2, Offset: 1 << 20, Delta: 1 << 31, Used: []PageRun{{0x900000, 0x901000}}, Lock: true})
	moved, filter := Slot(4), uint32(0x33)
	p.Descriptors[1].Events = []EventSpec{{FD: 0, Events: 1, Data: 7}, {FD: 8, Events: 0x19, Data: 8, Slot: &moved}}
	p.CoreFilter, p.LockFuture, p.Barriers, p.MergeMemory = &filter, 2, 1<<4, true
	thread := &p.Threads[1]
	thread.IOPriority, thread.Scheduling.ResetOnFork = 2<<13|6, true
	thread.Scheduling.Runtime, thread.Scheduling.Deadline, thread.Scheduling.Period = 1000, 2000, 3000
	s.Pages = 5
	s.Ready = &ReadySpec{CPU: "00ff", Addresses: []netip.Addr{netip.MustParseAddr("10.88.0.2")}, Subject: json.RawMessage(`{"image":"x"}`)}
	s.Ready.Random = []unique.Spec{{Places: []unique.Place{{Kind: unique.KindBytes, Addr: 0x500000, LenBytes: 16}}, Shared: []string{"a hash seed"}}, {}}
	s.Ready.Sums = []SumSpec{{File: PagesName, Offset: 4096, LenBytes: 8192, Hash: 1 << 63}}
	for i := range 5 {
		s.Ready.Objects = append(s.Ready.Objects, object.Spec{Kind: object.KindFile, Same: -1, Flags: i & 1, File: &object.FileSpec{Path: "/etc/x", OffsetBytes: 3}})
	}
	return s
}

// equalSpecs compares what is stored of specs.
var equalSpecs = cmp.Options{cmpopts.IgnoreUnexported(ProcessSpec{}, DescriptorSpec{}, VMASpec{}, EventSpec{}),
	cmpopts.EquateComparable(netip.Addr{})}

// exampleKey seals the golden file.
var exampleKey = &Key{1, 2, 3}

// TestOldMeta keeps the files of version 1 readable: services that sleep while
// torpor is replaced.
func TestOldMeta(t *testing.T) {
	golden, err := os.ReadFile(filepath.Join("testdata", "meta-1.golden"))
	if err != nil {
		t.Fatal(err)
	}
	spec, err := LoadSpec(golden, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(exampleSpec(), spec, equalSpecs); diff != "" {
		t.Errorf("loaded spec differs (-want +got):\n%s", diff)
	}
	if _, err := LoadSpec(golden, exampleKey); !errors.Is(err, host.ErrCorrupt) {
		t.Errorf("loaded as a sealed one: %v", err)
	}
}

// TestGoldenMeta keeps the files of version 2 readable.
func TestGoldenMeta(t *testing.T) {
	path := filepath.Join("testdata", "meta-2.golden")
	encoded, err := exampleReady().Encode(exampleKey)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, encoded, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(encoded, golden) {
		t.Errorf("the encoding is not that of version %d: raise the version and add a file", metaVersion)
	}
	spec, err := LoadSpec(golden, exampleKey)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(exampleReady(), spec, equalSpecs); diff != "" {
		t.Errorf("loaded spec differs (-want +got):\n%s", diff)
	}
	for name, key := range map[string]*Key{"no": nil, "another": {9}} {
		if _, err := LoadSpec(golden, key); !errors.Is(err, host.ErrCorrupt) {
			t.Errorf("%s key opens it: %v", name, err)
		}
	}
}

func TestDamagedMeta(t *testing.T) {
	good, err := exampleSpec().Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		damage func([]byte) []byte
		want   error
	}{
		{"empty", func(b []byte) []byte { return nil }, host.ErrCorrupt},
		{"magic", func(b []byte) []byte { b[0]++; return b }, host.ErrCorrupt},
		{"version", func(b []byte) []byte { b[8]++; return b }, host.ErrUnsupported},
		{"length", func(b []byte) []byte { b[12]++; return b }, host.ErrCorrupt},
		{"checksum", func(b []byte) []byte { b[16]++; return b }, host.ErrCorrupt},
		{"reserved", func(b []byte) []byte { b[20]++; return b }, host.ErrCorrupt},
		{"seal", func(b []byte) []byte { b[24]++; return b }, host.ErrCorrupt},
		{"cut header", func(b []byte) []byte { return b[:40] }, host.ErrCorrupt},
		{"older version", func(b []byte) []byte { b[8]--; return b }, host.ErrCorrupt},
		{"body", func(b []byte) []byte { b[100] ^= 1; return b }, host.ErrCorrupt},
		{"cut", func(b []byte) []byte { return b[:len(b)-1] }, host.ErrCorrupt},
		{"longer", func(b []byte) []byte { return append(b, 0) }, host.ErrCorrupt},
	} {
		if _, err := LoadSpec(test.damage(bytes.Clone(good)), nil); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}

func TestInvalidSpecs(t *testing.T) {
	for name, spoil := range map[string]func(*Spec){
		"no processes":    func(s *Spec) { s.Processes = nil },
		"no threads":      func(s *Spec) { s.Processes[0].Threads = nil },
		"leader":          func(s *Spec) { s.Processes[0].Threads[0].TID++ },
		"pid twice":       func(s *Spec) { s.Processes[1].PID, s.Processes[1].Threads[0].TID = 2, 2 },
		"parent":          func(s *Spec) { s.Processes[1].Parent = 99 },
		"mapping end":     func(s *Spec) { s.Processes[0].VMAs[0].End = s.Processes[0].VMAs[0].Start },
		"mapping align":   func(s *Spec) { s.Processes[0].VMAs[0].Start++ },
		"kernel mapping":  func(s *Spec) { s.Processes[0].VMAs[0].End = 1 << 60 },
		"mapping's file":  func(s *Spec) { s.Processes[0].VMAs[0].File = 6 },
		"descriptor":      func(s *Spec) { s.Processes[0].Descriptors[0].FD = -1 },
		"descriptor slot": func(s *Spec) { s.Processes[0].Descriptors[0].Slot = -1 },
		"executable":      func(s *Spec) { s.Processes[0].Exe = 6 },
		"directory":       func(s *Spec) { s.Processes[0].Cwd = NoSlot },
		"root":            func(s *Spec) { s.Processes[0].Root = -2 },
		"image":           func(s *Spec) { s.Pages = 6 },
		"signal":          func(s *Spec) { s.Processes[0].SigActions[0].Signal = 65 },
		"state":           func(s *Spec) { s.Processes[0].Threads[1].XState = nil },
		"filter":          func(s *Spec) { s.Processes[0].Threads[1].Creds.Filters = [][]byte{{1}} },
		"used pages":      func(s *Spec) { s.Processes[0].VMAs[2].Used[0].End = 1 << 47 },
		"guards":          func(s *Spec) { s.Processes[0].VMAs[1].Guards[0].Start = 0 },
		"fingerprint":     func(s *Spec) { s.Verify[0].Process = 2 },
		"base":            func(s *Spec) { s.Processes[0].VMAs[0].Kind, s.Processes[0].VMAs[0].File = VMABase, NoSlot },
		"objects":         func(s *Spec) { s.Ready = &ReadySpec{Objects: make([]object.Spec, 3)} },
		"moved event": func(s *Spec) {
			slot := Slot(6)
			s.Processes[0].Descriptors[1].Events = []EventSpec{{Slot: &slot}}
		},
		"signal event": func(s *Spec) { s.Processes[0].Descriptors[1].Signals[0].FD = 1 << 30 },
		"place":        func(s *Spec) { *s = *exampleReady(); s.Ready.Random[0].Places[0].Addr = 0x1000 },
		"event":        func(s *Spec) { s.Processes[0].Descriptors[1].Events = []EventSpec{{FD: -1}} },
	} {
		s := exampleSpec()
		spoil(s)
		b, err := s.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := LoadSpec(b, nil); !errors.Is(err, host.ErrCorrupt) {
			t.Errorf("%s: %v, want %v", name, err, host.ErrCorrupt)
		}
	}
}

// FuzzLoadSpec checks that what is loaded can be compiled and stored again.
func FuzzLoadSpec(f *testing.F) {
	good, err := exampleSpec().Encode(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[metaHeaderBytes:])
	ready, err := exampleReady().Encode(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ready[metaHeaderBytes:])
	f.Add([]byte(`{"processes":[{"pid":1,"threads":[{"tid":1,"xstate":"AA=="}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append([]byte(metaMagic), make([]byte, metaHeaderBytes-len(metaMagic))...)
		binary.LittleEndian.PutUint32(b[8:], metaVersion)
		binary.LittleEndian.PutUint32(b[12:], uint32(len(body)))
		binary.LittleEndian.PutUint32(b[16:], crc32.Checksum(body, castagnoli))
		spec, err := LoadSpec(append(b, body...), nil)
		if err != nil {
			if !errors.Is(err, host.ErrCorrupt) {
				t.Errorf("%v does not match %v", err, host.ErrCorrupt)
			}
			return
		}
		if _, err := compile(spec, Holder{}, areaRange{base: 0x20000, lenBytes: 1 << 20}, nil); err != nil {
			t.Logf("compile: %v", err)
		}
		again, err := spec.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := LoadSpec(again, nil); err != nil {
			t.Errorf("stored again: %v", err)
		}
	})
}

func FuzzParseTimers(f *testing.F) {
	f.Add("ID: 0\nsignal: 14/00007ffd1f1a2b40\nnotify: signal/pid.2634\nClockID: 1\nID: 3\nsignal: 34/0\nnotify: signal/tid.12\nClockID: -6\n")
	f.Add("ID: 1\nnotify: thread/pid.1\n")
	f.Add("signal: 1/2\n")
	f.Fuzz(func(t *testing.T, text string) {
		timers, err := parseTimers(text)
		if err == nil && len(timers) > len(text)/3 {
			t.Errorf("%d timers in %d bytes", len(timers), len(text))
		}
	})
}

func TestParseTimers(t *testing.T) {
	got, err := parseTimers("ID: 0\nsignal: 14/00007ffd1f1a2b40\nnotify: signal/pid.2634\nClockID: 1\nID: 3\nsignal: 34/2a\nnotify: signal/tid.12\nClockID: 0\nID: 4\nsignal: 0/0\nnotify: none/pid.1\nClockID: 7\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []TimerSpec{{ID: 0, Clock: 1, Signal: 14, Value: 0x7ffd1f1a2b40}, {ID: 3, Signal: 34, Notify: 4, TID: 12, Value: 42}, {ID: 4, Clock: 7, Notify: 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("timers differ (-want +got):\n%s", diff)
	}
}

func FuzzParseEvents(f *testing.F) {
	f.Add("pos:\t0\nflags:\t02\ntfd:        5 events:       19 data:                5  pos:0 ino:2a sdev:10\n")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := parseEvents(text); err != nil {
			t.Skip()
		}
	})
}

func TestParseEvents(t *testing.T) {
	got, err := parseEvents("pos:\t0\nflags:\t02\ntfd:        5 events: 80000019 data: 1122334455667788  pos:0 ino:2a sdev:10\ntfd:       12 events:        1 data:                c  pos:0 ino:2b sdev:10\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []EventSpec{{FD: 5, Events: 0x80000019, Data: 0x1122334455667788, inode: 0x2a}, {FD: 12, Events: 1, Data: 12, inode: 0x2b}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(EventSpec{})); diff != "" {
		t.Errorf("events differ (-want +got):\n%s", diff)
	}
}

package proc

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const smapsText = `55d0c8a00000-55d0c8a21000 rw-p 00001000 fe:00 1234                       /tmp/a b\012c (deleted)
Size:                132 kB
Rss:                   8 kB
Anonymous:             4 kB
ProtectionKey:         3
VmFlags: rd wr mr mw me ac sd
7ffc1b2e0000-7ffc1b301000 rwxs 00000000 00:00 0                          [stack]
VmFlags: rd gd
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`

func TestParseSmaps(t *testing.T) {
	got, err := ParseSmaps(strings.NewReader(smapsText))
	if err != nil {
		t.Fatal(err)
	}
	want := []VMA{
		{Start: 0x55d0c8a00000, End: 0x55d0c8a21000, Prot: ProtRead | ProtWrite, Offset: 0x1000, Dev: "fe:00", Inode: 1234, Name: "/tmp/a b\nc (deleted)",
			Flags: []string{"rd", "wr", "mr", "mw", "me", "ac", "sd"}, ProtectionKey: 3, PrivateBytes: 4096, ResidentBytes: 8192},
		{Start: 0x7ffc1b2e0000, End: 0x7ffc1b301000, Prot: 7, Shared: true, Dev: "00:00", Name: "[stack]", Flags: []string{"rd", "gd"}},
		{Start: 0xffffffffff600000, End: 0xffffffffff601000, Prot: ProtExec, Dev: "00:00", Name: "[vsyscall]"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mappings differ (-want +got):\n%s", diff)
	}
	if !got[1].Has("gd") || got[1].Has("wf") {
		t.Error("flags are not found")
	}
}

const statText = "7 (a) b (c) S 1 7 7 34816 7 4194560 1 2 3 4 55 66 0 0 20 0 1 0 999 1000 100 18446744073709551615 4194304 4210688 140736000000000 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 6303248 6304000 30000000 140736000001000 140736000001010 140736000001010 140736000001020 0\n"

func TestParseStat(t *testing.T) {
	got, err := ParseStat(statText)
	if err != nil {
		t.Fatal(err)
	}
	want := &Stat{Comm: "a) b (c", State: 'S', Flags: 4194560, StartTime: 999, UserTicks: 55, SystemTicks: 66, TTY: 34816, Layout: Layout{
		StartCode: 4194304, EndCode: 4210688, StartStack: 140736000000000, StartData: 6303248, EndData: 6304000, StartBrk: 30000000,
		ArgStart: 140736000001000, ArgEnd: 140736000001010, EnvStart: 140736000001010, EnvEnd: 140736000001020}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stat differs (-want +got):\n%s", diff)
	}
}

const statusText = "Name:\ta b\nUmask:\t0027\nState:\tS (sleeping)\nTgid:\t12\nPPid:\t1\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 4000000000 \n" +
	"NStgid:\t12\t3\nNSpid:\t12\t3\nNSpgid:\t12\t3\nNSsid:\t12\t0\nThreads:\t2\nSigPnd:\t0000000000000100\nSigBlk:\t8000000000000000\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t1\nSeccomp:\t2\n"

func TestParseStatus(t *testing.T) {
	got, err := ParseStatus(statusText)
	if err != nil {
		t.Fatal(err)
	}
	want := &Status{Name: "a b", State: 'S', TGID: 12, PPID: 1, NSPIDs: []int{12, 3}, NSPGIDs: []int{12, 3}, NSSIDs: []int{12, 0}, UIDs: [4]uint32{1, 2, 3, 4},
		GIDs: [4]uint32{5, 6, 7, 8}, Groups: []uint32{9, 4000000000}, Umask: 0o27, Caps: Capabilities{Effective: 1<<41 - 1}, NoNewPrivs: true, Seccomp: 2,
		Threads: 2, SigPending: 0x100, SigBlocked: 1 << 63}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status differs (-want +got):\n%s", diff)
	}
	for _, line := range []string{"Tgid:\t12\n", "NSpid:\t12\t3\n", "NSpgid:\t12\t3\n", "NSsid:\t12\t0\n"} {
		if _, err := ParseStatus(strings.Replace(statusText, line, "", 1)); err == nil {
			t.Errorf("a status without %q is accepted", line)
		}
	}
}

func TestParseLimits(t *testing.T) {
	b, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), "Max open files", "Max open files 12 unlimited files", 1)
	limits, err := ParseLimits(text)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Limit{12, ^uint64(0)}); limits[7] != want {
		t.Errorf("limit of open files is %v, want %v", limits[7], want)
	}
	if _, err := ParseLimits(strings.Replace(text, "Max nice", "Min nice", 1)); err == nil {
		t.Error("limits without one are accepted")
	}
}

func TestDescriptorInfo(t *testing.T) {
	var d Descriptor
	err := d.parseInfo("pos:\t42\nflags:\t02100002\nlock:\t1: FLOCK  ADVISORY  WRITE 5 fe:00:1 0 EOF\n")
	if err != nil || d.OffsetBytes != 42 || !d.CloseOnExec || d.RecordLock {
		t.Errorf("descriptor is %+v (%v)", d, err)
	}
	if err := d.parseInfo("flags:\t02\nlock:\t1: POSIX  ADVISORY  WRITE 5 fe:00:1 0 9\n"); err != nil || !d.RecordLock {
		t.Errorf("record lock is not seen: %+v (%v)", d, err)
	}
}

// TestSelf reads this process with every reader.
func TestSelf(t *testing.T) {
	pid := os.Getpid()
	if !Alive(pid) || Alive(1<<22+1) {
		t.Error("alive is wrong")
	}
	vmas, err := VMAs(pid)
	if err != nil || len(vmas) < 5 {
		t.Errorf("%d mappings: %v", len(vmas), err)
	}
	stat, err := ReadStat(pid)
	if err != nil || stat.Layout.StartStack == 0 {
		t.Errorf("stat: %v", err)
	}
	status, err := ReadStatus(pid, pid)
	if err != nil || status.TGID != pid {
		t.Errorf("status: %v", err)
	}
	tids, err := Tasks(pid)
	if err != nil || len(tids) == 0 || tids[0] != pid {
		t.Errorf("tasks %v: %v", tids, err)
	}
	fds, err := Descriptors(pid)
	if err != nil || len(fds) < 3 {
		t.Errorf("descriptors %v: %v", fds, err)
	}
	if same, ok, err := Share(pid, tids[len(tids)-1], ResourceDescriptors); err != nil || ok && !same {
		t.Errorf("threads do not share descriptors: %v", err)
	}
}

func FuzzParseSmaps(f *testing.F) {
	f.Add(smapsText)
	f.Add("1-2 rwxp 0 0:0 0 a\nRss: x kB\n")
	f.Fuzz(func(t *testing.T, text string) {
		vmas, err := ParseSmaps(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, v := range vmas {
			if v.Start >= v.End || v.Prot > 7 {
				t.Errorf("mapping %v", &v)
			}
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add(statText)
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParseStat(text); err == nil && s.State == 0 && !strings.Contains(text, "\x00") {
			t.Error("no state")
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add(statusText)
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParseStatus(text); err == nil && (len(s.NSPIDs) == 0 || len(s.NSPGIDs) == 0 || len(s.NSSIDs) == 0) {
			t.Error("a status without ids is accepted")
		}
	})
}

func FuzzParseLimits(f *testing.F) {
	f.Add("Max cpu time              unlimited            unlimited            seconds\n")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := ParseLimits(text); err == nil && len(text) < LimitCount*10 {
			t.Error("limits from nothing")
		}
	})
}

package checkpoint

import (
	"encoding/json"
	"net/netip"
	"time"

	"torpor/checkpoint/files"
	"torpor/checkpoint/object"
	"torpor/checkpoint/unique"
	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
	"torpor/kernel/timens"
)

// Slot numbers a descriptor parked in the Holder, from 0.
type Slot int

// NoSlot says that there is none.
const NoSlot Slot = -1

// ImageOffset is a byte offset in the pages image.
type ImageOffset uint64

// Spec is what is known of a checkpointed tree. Pids are those inside the
// tree's pid namespace.
type Spec struct {
	Created   time.Time `json:"created"`
	Boot      string    `json:"boot"`   // boot_id: parked descriptors live as long
	Kernel    string    `json:"kernel"` // release and version of uname
	HolderPID int       `json:"holder_pid"`
	Parked    int       `json:"parked"` // descriptors in the Holder
	// Connections: the last ones of them are connections of TCP that nothing
	// else refers to. Suspended: the last ones are not in the Holder, but with
	// who suspended them; they are parked again before a restore.
	Connections int `json:"connections,omitempty"`
	Suspended   int `json:"suspended,omitempty"`

	Pages     Slot          `json:"pages"`          // the pages image
	Time      *Slot         `json:"time,omitempty"` // the tree's own time namespace, if it has one
	Image     ImageIdentity `json:"image"`
	Processes []ProcessSpec `json:"processes"` // parents before their children
	Verify    []Fingerprint `json:"verify,omitempty"`
	Ready     *ReadySpec    `json:"ready,omitempty"` // of a ready checkpoint, which stands on nothing that a boot takes away
}

// ReadySpec is what makes a checkpoint self-contained.
type ReadySpec struct {
	CPU       string               `json:"cpu"`     // digest of the CPU's features
	Clocks    timens.Clocks        `json:"clocks"`  // as the tree read them
	Objects   []object.Spec        `json:"objects"` // how each Slot but Pages is made
	Segments  []object.SegmentSpec `json:"segments,omitempty"`
	Beside    []files.Record       `json:"beside,omitempty"`
	Addresses []netip.Addr         `json:"addresses,omitempty"` // of the container; another instance has others, in this order
	Random    []unique.Spec        `json:"random,omitempty"`    // of each process: what no two restores may share
	Sums      []SumSpec            `json:"sums,omitempty"`
	ColdStart time.Duration        `json:"cold_start_ns,omitempty"`
	Subject   json.RawMessage      `json:"subject,omitempty"` // the owner's: what the tree is a checkpoint of
}

// ImageIdentity tells whether a pages image is still the one that was
// committed. Times are in ns.
type ImageIdentity struct {
	Dev      uint64 `json:"dev"`
	Inode    uint64 `json:"inode"`
	LenBytes int64  `json:"len_bytes"`
	MTime    int64  `json:"mtime_ns"`
	CTime    int64  `json:"ctime_ns"`
}

// ProcessSpec is one process.
type ProcessSpec struct {
	PID     int `json:"pid"`
	Parent  int `json:"parent"` // 0: the Holder or whoever adopts
	Session int `json:"session"`
	Group   int `json:"group"`

	VMAs   []VMASpec   `json:"vmas"`
	Layout proc.Layout `json:"layout"`
	Brk    proc.Addr   `json:"brk"`
	Auxv   []byte      `json:"auxv"`
	Call   proc.Addr   `json:"call"` // of a `syscall` instruction in the vdso
	Exe    Slot        `json:"exe"`
	Cwd    Slot        `json:"cwd"`
	Root   Slot        `json:"root"` // NoSlot: the namespace's
	Umask  uint32      `json:"umask"`

	Descriptors []DescriptorSpec            `json:"descriptors"`
	SigActions  []SigAction                 `json:"sig_actions"` // those that are not default
	Timers      []TimerSpec                 `json:"timers,omitempty"`
	ITimers     [3]ITimer                   `json:"itimers"`
	Pending     []ptrace.SigInfo            `json:"pending,omitempty"` // of the whole process
	Limits      [proc.LimitCount]proc.Limit `json:"limits"`

	OOMScoreAdj    int     `json:"oom_score_adj"`
	CoreFilter     *uint32 `json:"core_filter,omitempty"` // /proc/PID/coredump_filter; nil: not known
	Personality    uint32  `json:"personality"`
	Dumpable       bool    `json:"dumpable"`
	NoHugePages    bool    `json:"no_huge_pages"`          // PR_SET_THP_DISABLE
	MergeMemory    bool    `json:"merge_memory,omitempty"` // PR_SET_MEMORY_MERGE
	ChildSubreaper bool    `json:"child_subreaper"`
	Barriers       uint64  `json:"barriers,omitempty"`    // commands by which it registered for membarrier(2)
	LockFuture     int     `json:"lock_future,omitempty"` // MCL_* of mlockall(2) for mappings that are yet to be made

	Threads []ThreadSpec `json:"threads"` // the leader first

	terminal bool // has a controlling terminal, while dumping
}

// ThreadSpec is one thread.
type ThreadSpec struct {
	TID         int              `json:"tid"`
	Comm        string           `json:"comm"`
	Regs        ptrace.Regs      `json:"regs"`
	XState      []byte           `json:"xstate"`
	SigMask     uint64           `json:"sig_mask"`
	AltStack    AltStack         `json:"alt_stack"`
	Rseq        ptrace.Rseq      `json:"rseq"`
	RobustList  proc.Addr        `json:"robust_list"`
	ClearTID    proc.Addr        `json:"clear_tid"`
	DeathSignal int              `json:"death_signal"`
	Creds       Credentials      `json:"creds"`
	Scheduling  proc.Scheduling  `json:"scheduling"`
	IOPriority  int              `json:"io_priority,omitempty"` // as of ioprio_get(2); 0: it follows from the nice value
	TimerSlack  uint64           `json:"timer_slack_ns"`
	Pending     []ptrace.SigInfo `json:"pending,omitempty"`
}

// Credentials of a thread.
type Credentials struct {
	UIDs       [4]uint32         `json:"uids"` // real, effective, saved, file system
	GIDs       [4]uint32         `json:"gids"`
	Groups     []uint32          `json:"groups"`
	Caps       proc.Capabilities `json:"caps"`
	SecureBits uint32            `json:"secure_bits"`
	NoNewPrivs bool              `json:"no_new_privs"`
	Filters    [][]byte          `json:"filters,omitempty"` // seccomp programs, struct sock_filter[], oldest first
}

// DescriptorSpec is one open descriptor.
type DescriptorSpec struct {
	FD          int    `json:"fd"`
	Slot        Slot   `json:"slot"`
	CloseOnExec bool   `json:"close_on_exec"`
	Target      string `json:"target"`              // as in /proc/PID/fd
	Connected   bool   `json:"connected,omitempty"` // a TCP socket with a peer

	// Owner gets the file's signals; its ID is inside the tree.
	Owner proc.Owner `json:"owner"`
	// Signals are the signal descriptors that this set of events watches.
	Signals []EventSpec `json:"signals,omitempty"`
	// Events are registrations to make in this set: in a ready checkpoint all, by
	// one process; otherwise those of connections that were suspended.
	Events []EventSpec `json:"events,omitempty"`

	info proc.Descriptor // while dumping
}

// EventSpec is one registration of an epoll descriptor.
type EventSpec struct {
	FD     int    `json:"fd"`
	Events uint32 `json:"events"`
	Data   uint64 `json:"data"`
	// Slot is the file that is registered, where the descriptor is closed or
	// another file since; nil: the descriptor's.
	Slot *Slot `json:"slot,omitempty"`

	inode uint64 // of the file, while dumping
	nth   int    // among those with the same FD, while dumping
}

// SigAction is struct kernel_sigaction of one signal.
type SigAction struct {
	Signal   int    `json:"signal"`
	Handler  uint64 `json:"handler"`
	Flags    uint64 `json:"flags"`
	Restorer uint64 `json:"restorer"`
	Mask     uint64 `json:"mask"`
}

// AltStack is stack_t.
type AltStack struct {
	Addr     uint64 `json:"addr"`
	Flags    uint32 `json:"flags"`
	_        uint32
	LenBytes uint64 `json:"len_bytes"`
}

// ITimer is struct itimerval.
type ITimer struct {
	IntervalSec, IntervalUsec, ValueSec, ValueUsec int64
}

// TimerSpec is one POSIX timer.
type TimerSpec struct {
	ID     int      `json:"id"`
	Clock  int      `json:"clock"`
	Signal int      `json:"signal"`
	Notify int      `json:"notify"` // SIGEV_*
	TID    int      `json:"tid,omitempty"`
	Value  uint64   `json:"value"` // sigev_value
	Spec   [4]int64 `json:"spec"`  // struct itimerspec
}

// VMAKind says how a mapping is rebuilt.
type VMAKind string

// The kinds of VMASpec.
const (
	VMAImage   VMAKind = "image"   // private, from the pages image
	VMABase    VMAKind = "base"    // private, from the pages image of the ready checkpoint; Used pages are read from this one's
	VMAFile    VMAKind = "file"    // private, from a parked file, no page changed
	VMAShared  VMAKind = "shared"  // shared, from a parked file
	VMASysV    VMAKind = "sysv"    // System V shared memory; Offset is its id
	VMAAnon    VMAKind = "anon"    // private, never touched
	VMAStack   VMAKind = "stack"   // grows down: anonymous, Used pages are read from the image
	VMACopied  VMAKind = "copied"  // anonymous with flags a file mapping can not have; Used pages are read
	VMADrop    VMAKind = "drop"    // MAP_DROPPABLE: restored empty, which its users expect
	VMASpecial VMAKind = "special" // vvar, vdso: moved
)

// VMASpec is one mapping.
type VMASpec struct {
	Start, End proc.Addr
	Prot       proc.Prot
	Kind       VMAKind
	File       Slot        `json:",omitempty"` // of VMAFile, VMAShared and VMABase
	Offset     ImageOffset `json:",omitempty"` // in the image; in the file for VMAFile, VMAShared and VMABase
	Delta      ImageOffset `json:",omitempty"` // in the image, of VMABase: where its Used pages are
	Used       []PageRun   `json:",omitempty"` // of VMAStack, VMACopied and VMABase
	NoReserve  bool        `json:",omitempty"`
	Lock       bool        `json:",omitempty"` // lock on fault, so that MADV_DONTNEED fails instead of returning old data
	Advice     []int       `json:",omitempty"` // madvise values to repeat
	Guards     []PageRun   `json:",omitempty"` // MADV_GUARD_INSTALL
	Name       string      `json:",omitempty"`

	process int // index in Spec.Processes while dumping
}

// PageRun is a run of pages of a mapping.
type PageRun struct{ Start, End proc.Addr }

// Len is the mapping's length in bytes.
func (v *VMASpec) Len() uint64 { return uint64(v.End - v.Start) }

// slot is where the mapping's own pages lie in the image, nil if it has none.
func (v *VMASpec) slot() *ImageOffset {
	switch v.Kind {
	case VMAImage, VMAStack, VMACopied:
		return &v.Offset
	case VMABase:
		return &v.Delta
	}
	return nil
}

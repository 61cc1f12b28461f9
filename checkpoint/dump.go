package checkpoint

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"torpor/checkpoint/object"
	"torpor/kernel/pidfd"
	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
)

// DumpOptions say how a tree is dumped.
type DumpOptions struct {
	Dir    string  // checkpoint directory, made if missing
	Holder *Holder // who keeps the descriptors
	// List returns the pids of the tree, parents first; it is called until
	// nothing new appears while the tree is stopped.
	List func() ([]int, error)
	// OwnSession makes a first process whose session leader is not in the tree
	// the leader of a session of its own, without a controlling terminal.
	OwnSession bool
	// Quiet refuses, with ErrBusy, a tree one of whose threads is at work: not
	// waiting in a system call. Asleep, it would never finish what it does, for
	// no packet has to come for it.
	Quiet bool
	// LeaveRunning lets the tree go on after the commit instead of killing it.
	LeaveRunning bool
	// OwnMostBytes: a mapping up to this size that differs from the ready
	// checkpoint which the tree came from is written whole, so that later wakes
	// need not read what differs. 0 writes differences only, while they are small.
	OwnMostBytes uint64
	// Verify compares every private page and register at the restore with
	// those of now.
	Verify bool
	// Soon reports whether a connection is expected to be used soon: it comes
	// before the others, which can then be suspended without it. nil: none is.
	Soon func(local, remote netip.AddrPort) bool
	// At is called between the steps, for tests that fail or kill there.
	At func(step string) error

	locking locking
}

// DumpReport says what a dump did.
type DumpReport struct {
	Spec          *Spec
	WrittenBytes  int64
	ResidentBytes int64
	Threads       int
	Phases        map[string]time.Duration
}

// dump is one dump in progress; it runs on its tracer's thread.
type dump struct {
	DumpOptions
	tree     *frozen
	park     *parking
	image    *os.File
	file     imageFile     // the same, as mappings show it
	base     imageFile     // that of the ready checkpoint which the tree came from, if any
	copied   []imageFile   // images that a ready checkpoint must not need
	ready    *ReadyOptions // of a ready checkpoint
	timeNS   uint64        // inode of the tree's time namespace
	spec     *Spec
	mappings []*mapping
	handles  []*os.File // pidfds of the processes
	slots    *slotTable
	report   DumpReport
	clock    time.Time
}

// Dump stops the tree, writes its checkpoint, commits and kills it. Before the
// commit every error leaves the tree running unharmed; a tree that can not be
// saved is a *host.Refusal.
func Dump(o DumpOptions) (*DumpReport, error) {
	tracer := ptrace.NewTracer()
	defer tracer.Close()
	d := newDump(o)
	if err := tracer.Do(d.run); err != nil {
		return nil, err
	}
	return &d.report, nil
}

func newDump(o DumpOptions) *dump {
	return &dump{DumpOptions: o, clock: time.Now(), report: DumpReport{Phases: map[string]time.Duration{}}}
}

// phase notes the time since the last phase, then runs the test's hook.
func (d *dump) phase(name string) error {
	now := time.Now()
	d.report.Phases[name] += now.Sub(d.clock)
	d.clock = now
	if d.At != nil {
		return d.At(name)
	}
	return nil
}

func (d *dump) run() (err error) {
	if err := d.openImage(); err != nil {
		return err
	}
	defer d.image.Close()
	d.park = newParking(d.Holder.PID)
	defer d.park.close()
	if d.tree, err = freeze(d.List); err != nil {
		return err
	}
	defer d.closeHandles()
	if err := d.prepare(); err != nil {
		return errors.Join(err, d.abort())
	}
	if d.LeaveRunning {
		return d.tree.release()
	}
	d.kill()
	// The tree sleeps. Space that can not be given back now is at the next dump.
	_ = freeUnused(d.image, d.extents())
	return nil
}

// openImage opens or makes the pages image of the directory. One that a
// running process maps is always kept: it is this one.
func (d *dump) openImage() error {
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return fmt.Errorf("make checkpoint directory: %w", err)
	}
	var err error
	d.image, err = os.OpenFile(filepath.Join(d.Dir, PagesName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open pages image: %w", err)
	}
	d.base, err = findImage(filepath.Join(d.Dir, baseName))
	return err
}

// findImage is an image as mappings show it; zero if there is none.
func findImage(path string) (imageFile, error) {
	var st syscall.Stat_t
	err := syscall.Stat(path, &st)
	if errors.Is(err, syscall.ENOENT) {
		return imageFile{}, nil
	}
	if err != nil {
		return imageFile{}, fmt.Errorf("find pages image %s: %w", path, err)
	}
	return imageFile{st.Dev, st.Ino}, nil
}

// prepare does all that can fail, up to and including the commit.
func (d *dump) prepare() error {
	return d.steps([]step{
		{"freeze", d.openHandles},
		{"quiet", d.checkQuiet},
		{"collect", d.collect},
		{"slots", d.assign},
		{"write", d.write},
		{"park", d.parkAll},
		{"commit", func() error { return d.spec.commit(d.Dir) }},
	})
}

// step is a part of a dump with a name for its time.
type step struct {
	name string
	do   func() error
}

func (d *dump) steps(steps []step) error {
	for _, step := range steps {
		if err := step.do(); err != nil {
			return err
		}
		if err := d.phase(step.name); err != nil {
			return err
		}
	}
	return nil
}

// abort lets the tree run on and takes back what was parked and written.
func (d *dump) abort() error {
	if d.slots != nil {
		_ = freeUnused(d.image, d.mapped()) // else at the next dump
	}
	err := errors.Join(d.tree.release(), Discard(d.Dir))
	if d.spec != nil && d.spec.Parked > 0 {
		err = errors.Join(err, d.Holder.Release())
	}
	return err
}

func (d *dump) collect() error {
	boot, kernel, err := identity()
	if err != nil {
		return err
	}
	holder, err := proc.ReadStatus(d.Holder.PID, d.Holder.PID)
	if err != nil {
		return err
	}
	d.spec = &Spec{Created: time.Now(), Boot: boot, Kernel: kernel, HolderPID: holder.NSPIDs[len(holder.NSPIDs)-1]}
	parked := map[string]Slot{}
	id, err := identify(d.image)
	if err != nil {
		return err
	}
	d.file = imageFile{id.Dev, id.Inode}
	for i := range d.tree.processes {
		p := &d.tree.processes[i]
		spec, vmas, err := collect(p, d.park)
		if err != nil {
			return err
		}
		c := &classifier{pid: p.pid, image: d.file, base: d.base, copied: d.copied, ownMost: d.OwnMostBytes, basePath: filepath.Join(d.Dir, baseName), park: d.park,
			parked: parked, discards: d.locking.choose(vmas)}
		mappings, err := c.classify(vmas)
		if err != nil {
			return err
		}
		for j := range mappings {
			mappings[j].spec.process = i
			d.mappings = append(d.mappings, &mappings[j])
			d.report.ResidentBytes += mappings[j].vma.PrivateBytes
		}
		d.report.Threads += len(p.tasks)
		d.spec.Processes = append(d.spec.Processes, *spec)
	}
	if err := d.parkTime(); err != nil {
		return err
	}
	if err := d.relations(); err != nil {
		return err
	}
	if err := d.connect(); err != nil {
		return err
	}
	return d.refuse()
}

// identity names this boot and this kernel.
func identity() (boot, kernel string, err error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", "", fmt.Errorf("read boot id: %w", err)
	}
	v, err := os.ReadFile("/proc/version")
	if err != nil {
		return "", "", fmt.Errorf("read kernel version: %w", err)
	}
	return strings.TrimSpace(string(b)), strings.TrimSpace(string(v)), nil
}

func (d *dump) assign() error {
	var err error
	d.slots, err = assignSlots(d.mappings)
	return err
}

// write copies the pages and fills in the specs of the mappings.
func (d *dump) write() error {
	end := ImageOffset(0)
	for _, e := range d.extents() {
		end = max(end, e.end)
	}
	if err := d.image.Truncate(int64(end + d.slots.gap)); err != nil {
		return fmt.Errorf("size pages image: %w", err)
	}
	w := &pageWriter{image: d.image, buffer: make([]byte, copyBytes)}
	memories := make([]*proc.Memory, len(d.tree.processes))
	for i, p := range d.tree.processes {
		memories[i] = proc.OpenMemory(p.pid)
		defer memories[i].Close()
	}
	for _, m := range d.mappings {
		if m.inImage() {
			if err := w.write(m, memories[m.spec.process], d.slots.gap); err != nil {
				return err
			}
		}
		p := &d.spec.Processes[m.spec.process]
		p.VMAs = append(p.VMAs, m.spec)
	}
	d.report.WrittenBytes = w.written
	d.report.Spec = d.spec
	if d.Verify {
		return d.fingerprint(memories)
	}
	return nil
}

// inImage reports whether the mapping has a slot.
func (m *mapping) inImage() bool { return m.spec.slot() != nil }

// extents are the slots that the committed checkpoint uses, in order.
func (d *dump) extents() []extent {
	t := new(slotTable)
	for _, m := range d.mappings {
		if m.inImage() {
			t.claim(*m.spec.slot(), *m.spec.slot()+ImageOffset(m.spec.Len()))
		}
	}
	return t.used
}

// mapped are the runs of the image that the processes map now, in order.
func (d *dump) mapped() []extent {
	t := new(slotTable)
	for _, m := range d.mappings {
		if d.file.maps(m.vma) {
			t.claim(ImageOffset(m.vma.Offset), ImageOffset(m.vma.Offset)+ImageOffset(m.vma.Len()))
		}
	}
	return t.used
}

// parkAll gives the collected descriptors and the image to the holder.
func (d *dump) parkAll() error {
	var err error
	if d.spec.Pages, err = d.park.path(d.image.Name(), os.O_RDONLY, object.UseMapped); err != nil {
		return err
	}
	if d.spec.Image, err = identify(d.image); err != nil {
		return err
	}
	d.connectionsLast()
	if err := d.Holder.Release(); err != nil {
		return err
	}
	d.spec.Parked = len(d.park.fds)
	return d.Holder.Park(d.park.fds)
}

// openHandles refers to the processes by pidfds, before anything depends on it.
func (d *dump) openHandles() error {
	for _, p := range d.tree.processes {
		h, err := pidfd.Open(p.pid)
		if err != nil {
			return err
		}
		d.handles = append(d.handles, h)
	}
	return nil
}

func (d *dump) closeHandles() {
	for _, h := range d.handles {
		h.Close()
	}
}

// kill ends the tree and waits until every pid is free again. From the commit
// on the checkpoint is the truth: the tree must not run on, not even if this
// process is killed now, and nothing is an error any more. What can not be
// done to a process is because it is gone.
func (d *dump) kill() {
	for tid := range d.tree.seized {
		_ = ptrace.SetOptions(tid, boundOptions)
	}
	for i, p := range d.tree.processes {
		dropRobustLists(p, &d.spec.Processes[i])
	}
	// Parents last: a parent that lives would see its child die.
	for i := len(d.handles) - 1; i >= 0; i-- {
		_ = pidfd.Kill(d.handles[i])
	}
	for i := len(d.handles) - 1; i >= 0; i-- {
		_ = d.bury(d.tree.processes[i])
	}
	_ = d.phase("kill")
}

// dropRobustLists makes the kernel forget the lists of robust mutexes: at the
// end of a task it would mark those held as orphaned, also in shared memory,
// where the restored task needs them as they are.
func dropRobustLists(p frozenProcess, spec *ProcessSpec) {
	memory := proc.OpenMemory(p.pid)
	defer memory.Close()
	for i, t := range p.tasks {
		list := spec.Threads[i].RobustList
		if list == 0 {
			continue
		}
		head := make([]byte, robustListBytes) // struct robust_list_head
		if memory.ReadAt(head, list) != nil {
			continue // then the kernel can not either
		}
		if w := words(head); w[0] == uint64(list) && w[2] == 0 {
			continue // holds none
		}
		if ptrace.SetSigMask(t.tid, ^uint64(0)) == nil {
			_, _ = ptrace.InjectQuietly(t.tid, uint64(spec.Call), sysSetRobustList, 0, robustListBytes)
		}
	}
}

// bury takes the exit statuses that tracing owes us, and waits until the
// process has been reaped by its parent.
func (d *dump) bury(p frozenProcess) error {
	for i := len(p.tasks) - 1; i >= 0; i-- {
		for {
			stop, err := ptrace.Wait(p.tasks[i].tid)
			if errors.Is(err, syscall.ECHILD) {
				break // its leader's status covered it
			}
			if err != nil {
				return err
			}
			if stop.Gone() {
				break
			}
		}
	}
	return awaitFree(p.pid)
}

// awaitFree waits until a dead process's parent has reaped it.
func awaitFree(pid int) error {
	for deadline := time.Now().Add(10 * time.Second); proc.Exists(pid); {
		if time.Now().After(deadline) {
			return fmt.Errorf("kill process %d: its parent does not reap it", pid)
		}
		time.Sleep(50 * time.Microsecond)
	}
	return nil
}

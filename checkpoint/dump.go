package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

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
	// LeaveRunning lets the tree go on after the commit instead of killing it.
	LeaveRunning bool
	// Verify compares every private page and register at the restore with
	// those of now.
	Verify bool
	// At is called between the steps, for tests that fail or kill there.
	At func(step string) error
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
	spec     *Spec
	mappings []*mapping
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
	d := &dump{DumpOptions: o, clock: time.Now()}
	d.report.Phases = map[string]time.Duration{}
	if err := tracer.Do(d.run); err != nil {
		return nil, err
	}
	return &d.report, nil
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
	if err := d.prepare(); err != nil {
		return errors.Join(err, d.abort())
	}
	if d.LeaveRunning {
		return d.tree.release()
	}
	if err := d.kill(); err != nil {
		return err
	}
	return freeUnused(d.image, d.extents())
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
	return nil
}

// prepare does all that can fail, up to and including the commit.
func (d *dump) prepare() error {
	steps := []struct {
		name string
		do   func() error
	}{
		{"freeze", func() error { return nil }},
		{"collect", d.collect},
		{"slots", d.assign},
		{"write", d.write},
		{"park", d.parkAll},
		{"commit", func() error { return d.spec.commit(d.Dir) }},
	}
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

// abort lets the tree run on and takes back what was parked.
func (d *dump) abort() error {
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
	for i := range d.tree.processes {
		p := &d.tree.processes[i]
		spec, vmas, err := collect(p, d.park)
		if err != nil {
			return err
		}
		c := &classifier{pid: p.pid, image: imageFile{id.Dev, id.Inode}, park: d.park, parked: parked, lock: !breaksOnFailedDiscard(vmas)}
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
	if err := d.relations(); err != nil {
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
func (m *mapping) inImage() bool {
	return m.spec.Kind == VMAImage || m.spec.Kind == VMAStack || m.spec.Kind == VMACopied
}

// extents are the slots that the committed checkpoint uses, in order.
func (d *dump) extents() []extent {
	t := new(slotTable)
	for _, m := range d.mappings {
		if m.inImage() {
			t.claim(m.spec.Offset, m.spec.Offset+ImageOffset(m.spec.Len()))
		}
	}
	return t.used
}

// parkAll gives the collected descriptors and the image to the holder.
func (d *dump) parkAll() error {
	var err error
	if d.spec.Pages, err = d.park.path(d.image.Name(), os.O_RDONLY); err != nil {
		return err
	}
	if d.spec.Image, err = identify(d.image); err != nil {
		return err
	}
	if err := d.Holder.Release(); err != nil {
		return err
	}
	d.spec.Parked = len(d.park.fds)
	return d.Holder.Park(d.park.fds)
}

// kill ends the tree and waits until every pid is free again.
func (d *dump) kill() error {
	handles := make([]*os.File, len(d.tree.processes))
	for i, p := range d.tree.processes {
		var err error
		if handles[i], err = pidfd.Open(p.pid); err != nil {
			return err
		}
		defer handles[i].Close()
	}
	// Parents last: a parent that lives would see its child die.
	for i := len(handles) - 1; i >= 0; i-- {
		if err := pidfd.Kill(handles[i]); err != nil {
			return err
		}
	}
	for i := len(handles) - 1; i >= 0; i-- {
		if err := d.bury(d.tree.processes[i]); err != nil {
			return err
		}
	}
	return d.phase("kill")
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
	for deadline := time.Now().Add(10 * time.Second); proc.Exists(p.pid); {
		if time.Now().After(deadline) {
			return fmt.Errorf("kill process %d: its parent does not reap it", p.pid)
		}
		time.Sleep(50 * time.Microsecond)
	}
	return nil
}

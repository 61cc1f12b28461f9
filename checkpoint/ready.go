package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"torpor/checkpoint/files"
	"torpor/checkpoint/object"
	"torpor/checkpoint/unique"
	"torpor/host"
	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
	"torpor/kernel/timens"
	"torpor/kernel/tree"
)

// ReadyOptions say how a ready checkpoint is made.
type ReadyOptions struct {
	Dir    string // of the checkpoint; replaced as a whole
	Key    *Key
	Holder *Holder // the container's init
	List   func() ([]int, error)
	// Own is the directory of the tree's own checkpoints: memory that shows an
	// image there is copied.
	Own       string
	Addresses []netip.Addr
	Subject   json.RawMessage
	ColdStart time.Duration // how long the tree took to become ready
	Verify    bool
	// Beside are the files that the tree may have read: they are recorded while
	// it is stopped.
	Beside []files.Tree
	// At is called between the steps, for tests that fail or kill there.
	At func(step string) error
}

// DumpReady makes a checkpoint that can be restored at any time and as often
// as wanted, and lets the tree go on. A tree at work is ErrBusy; one that can
// not be saved is a *host.Refusal. On any error the tree runs unharmed and Dir
// is what it was.
func DumpReady(o ReadyOptions) (*DumpReport, error) {
	tracer := ptrace.NewTracer()
	defer tracer.Close()
	temporary := o.Dir + ".new"
	if err := os.RemoveAll(temporary); err != nil {
		return nil, fmt.Errorf("dump ready checkpoint: %w", err)
	}
	d := newDump(DumpOptions{Dir: temporary, Holder: o.Holder, List: o.List, Quiet: true, Verify: o.Verify, At: o.At})
	d.ready = &o
	err := tracer.Do(d.runReady)
	if err == nil {
		err = d.publish()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(temporary))
	}
	return &d.report, nil
}

// runReady stops the tree, copies all of it, and lets it go on.
func (d *dump) runReady() (err error) {
	if err := d.openImage(); err != nil {
		return err
	}
	d.park = newParking(d.Holder.PID)
	defer d.park.close()
	for _, name := range []string{PagesName, baseName} {
		image, err := findImage(filepath.Join(d.ready.Own, name))
		if err != nil {
			return err
		}
		d.copied = append(d.copied, image)
	}
	if d.tree, err = freeze(d.List); err != nil {
		return err
	}
	err = d.steps([]step{
		{"freeze", func() error { return nil }},
		{"quiet", d.checkQuiet},
		{"collect", d.collect},
		{"slots", d.assign},
		{"write", d.write},
		{"objects", d.describe},
		{"random", d.findRandom},
		{"files", d.recordFiles},
	})
	return errors.Join(err, d.tree.release())
}

// describe says how every open file is made again.
func (d *dump) describe() error {
	container := object.Container{PID: d.Holder.PID}
	objects, err := object.Describe(container, d.Dir, d.park.opens)
	if err != nil {
		return err
	}
	cpu, err := proc.CPUFeatures()
	if err != nil {
		return err
	}
	clocks, err := clocksOf(d.tree.processes[0].pid)
	if err != nil {
		return err
	}
	segments, err := object.DescribeSegments(container, d.segments(), d.Dir)
	if err != nil {
		return err
	}
	d.spec.Ready = &ReadySpec{CPU: cpu, Segments: segments, Clocks: clocks, Objects: objects, Addresses: d.ready.Addresses, Subject: d.ready.Subject, ColdStart: d.ready.ColdStart}
	d.spec.Pages, d.spec.Parked = Slot(len(objects)), len(objects)+1
	return d.registrations()
}

// findRandom finds the random state of every process.
func (d *dump) findRandom() error {
	for i, p := range d.tree.processes {
		var vmas []proc.VMA
		for _, m := range d.mappings {
			if m.spec.process == i {
				vmas = append(vmas, *m.vma)
			}
		}
		memory := proc.OpenMemory(p.pid)
		found, err := unique.Find(p.pid, vmas, memory)
		if err := errors.Join(err, memory.Close()); err != nil {
			return err
		}
		d.spec.Ready.Random = append(d.spec.Ready.Random, *found)
	}
	return nil
}

// segments are the ids of the System V shared memory that the tree has
// attached.
func (d *dump) segments() []int {
	var ids []int
	for _, m := range d.mappings {
		if m.spec.Kind == VMASysV && !slices.Contains(ids, int(m.spec.Offset)) {
			ids = append(ids, int(m.spec.Offset))
		}
	}
	return ids
}

// firstObject is the first slot with the same open file.
func (d *dump) firstObject(s Slot) int {
	if same := d.spec.Ready.Objects[s].Same; same >= 0 {
		return same
	}
	return int(s)
}

// recordFiles notes what the tree's files are. Too many to be compared, or to
// be kept, are a refusal.
func (d *dump) recordFiles() error {
	var err error
	d.spec.Ready.Beside, err = files.Take(d.ready.Beside, d.Dir)
	if errors.Is(err, files.ErrTooMany) || errors.Is(err, syscall.EFBIG) {
		return &host.Refusal{Reasons: []string{err.Error()}}
	}
	return err
}

// publish makes what was copied durable and takes the place of an older
// checkpoint. It runs when the tree goes on already.
func (d *dump) publish() error {
	defer d.image.Close()
	if err := d.image.Sync(); err != nil {
		return fmt.Errorf("sync pages image: %w", err)
	}
	var err error
	if d.spec.Image, err = identify(d.image); err != nil {
		return err
	}
	if err := tree.SyncFS(d.Dir); err != nil {
		return err
	}
	if err := d.phase("sync"); err != nil {
		return err
	}
	if d.spec.Ready.Sums, err = sumFiles(d.Dir); err != nil {
		return err
	}
	if err := d.phase("sum"); err != nil {
		return err
	}
	b, err := d.spec.Encode(d.ready.Key)
	if err != nil {
		return err
	}
	if err := writeDurably(filepath.Join(d.Dir, metaName), b); err != nil {
		return fmt.Errorf("commit ready checkpoint: %w", err)
	}
	if err := d.phase("commit"); err != nil {
		return err
	}
	return d.replace()
}

// replace gives the complete directory its name. An older checkpoint has it
// until then, and is removed only behind that.
func (d *dump) replace() error {
	from, to := d.Dir, d.ready.Dir
	if err := tree.Replace(from, to); err != nil {
		return fmt.Errorf("replace ready checkpoint: %w", err)
	}
	if err := syncDir(filepath.Dir(to)); err != nil {
		return err
	}
	// It is made: what fails now is no reason to call it not made. What is left
	// of the older one is removed by the next.
	_ = d.phase("replace")
	_ = os.RemoveAll(from)
	return nil
}

// ReadReady reads the ready checkpoint in dir and checks that this machine can
// use it. Errors: host.ErrNotFound; host.ErrCorrupt and host.ErrUnsupported
// with the reason why it is of no use.
func ReadReady(dir string, key *Key) (*Spec, error) {
	b, err := os.ReadFile(filepath.Join(dir, metaName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read ready checkpoint in %s: %w", dir, host.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read ready checkpoint: %w", err)
	}
	spec, err := LoadSpec(b, key)
	if err != nil {
		return nil, err
	}
	if spec.Ready == nil {
		return nil, fmt.Errorf("read ready checkpoint: it is one of a sleep: %w", host.ErrCorrupt)
	}
	return spec, spec.fits(dir)
}

// fits checks that the checkpoint is of this kernel and CPU, and its image
// whole.
func (s *Spec) fits(dir string) error {
	_, kernel, err := identity()
	if err != nil {
		return err
	}
	cpu, err := proc.CPUFeatures()
	if err != nil {
		return err
	}
	switch {
	case kernel != s.Kernel:
		return fmt.Errorf("use ready checkpoint: it was made by another kernel (%s): %w", s.Kernel, host.ErrUnsupported)
	case cpu != s.Ready.CPU:
		return fmt.Errorf("use ready checkpoint: it was made on a CPU with other features: %w", host.ErrUnsupported)
	}
	image, err := os.Open(ImagePath(dir))
	if err != nil {
		return fmt.Errorf("use ready checkpoint: %w: %w", err, host.ErrCorrupt)
	}
	defer image.Close()
	id, err := identify(image)
	if err != nil {
		return err
	}
	if id.Inode != s.Image.Inode || id.LenBytes != s.Image.LenBytes || id.MTime != s.Image.MTime {
		return fmt.Errorf("use ready checkpoint: its pages image was changed: %w", host.ErrCorrupt)
	}
	return nil
}

// ArmReady makes the open files of a ready checkpoint in a container that has
// no processes yet but its init, gives them to the init, and starts the stub
// that becomes the tree. own is the directory of the container's own
// checkpoints. The spec is not changed; the stub has a copy.
func ArmReady(dir string, spec *Spec, own string, addresses []netip.Addr, o ArmOptions) (*Stub, error) {
	mine, err := spec.instance(o.Holder)
	if err != nil {
		return nil, err
	}
	if err := linkBase(dir, own); err != nil {
		return nil, err
	}
	container := object.Container{PID: o.Holder.PID}
	if err := object.MakeSegments(container, dir, spec.Ready.Segments); err != nil {
		return nil, err
	}
	fds, err := object.Make(container, dir, spec.Ready.Objects, object.MakeOptions{Addresses: spec.Ready.renamed(addresses)})
	if err != nil {
		return nil, err
	}
	park := newParking(o.Holder.PID)
	defer park.close()
	for _, fd := range fds {
		park.add(object.Open{FD: fd})
	}
	if _, err := park.path(filepath.Join(own, baseName), os.O_RDONLY, object.UseMapped); err != nil {
		return nil, err
	}
	if err := mine.keepClocks(park); err != nil {
		return nil, err
	}
	if err := o.Holder.Release(); err != nil {
		return nil, err
	}
	if err := o.Holder.Park(park.fds); err != nil {
		return nil, errors.Join(err, o.Holder.Release())
	}
	if err := o.Holder.Adopt(mine.Processes[0].PID); err != nil {
		return nil, err
	}
	return Arm(mine, o)
}

// clocksOf reads the clocks of a process.
func clocksOf(pid int) (timens.Clocks, error) {
	now, err := timens.Now()
	if err != nil {
		return now, err
	}
	offsets, err := timens.Offsets(pid)
	if errors.Is(err, os.ErrNotExist) {
		return now, nil
	}
	return now.Plus(offsets), err
}

// keepClocks parks a time namespace for a tree that has read later times than
// this machine's clocks show, as after a reboot. Going back is what no program
// expects: a timeout would never come.
func (s *Spec) keepClocks(park *parking) error {
	now, err := timens.Now()
	if err != nil {
		return err
	}
	behind := s.Ready.Clocks.Minus(now)
	if behind.Monotonic <= 0 && behind.Boottime <= 0 {
		return nil
	}
	ns, err := timens.New(timens.Clocks{Monotonic: max(behind.Monotonic, 0), Boottime: max(behind.Boottime, 0)})
	if err != nil {
		return fmt.Errorf("%w: the clocks of this boot are behind those of the checkpoint: %w", err, host.ErrKernel)
	}
	defer ns.Close()
	slot, err := park.path(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), os.O_RDONLY, object.UseDescriptor)
	s.Time, s.Parked = &slot, len(park.fds)
	return err
}

// instance is the spec as it is in a new container, on this boot.
func (s *Spec) instance(h *Holder) (*Spec, error) {
	mine := *s
	var err error
	if mine.Boot, _, err = identity(); err != nil {
		return nil, err
	}
	status, err := proc.ReadStatus(h.PID, h.PID)
	if err != nil {
		return nil, err
	}
	mine.HolderPID = status.NSPIDs[len(status.NSPIDs)-1]
	return &mine, nil
}

// renamed pairs the addresses of the checkpoint's container with those of
// another one.
func (r *ReadySpec) renamed(to []netip.Addr) map[netip.Addr]netip.Addr {
	names := map[netip.Addr]netip.Addr{}
	for i, old := range r.Addresses {
		if i < len(to) {
			names[old] = to[i]
		}
	}
	return names
}

// linkBase names the ready checkpoint's image in the directory of a
// container's own checkpoints, which stand on it. Both are on one file system.
func linkBase(dir, own string) error {
	if err := os.MkdirAll(own, 0o700); err != nil {
		return fmt.Errorf("make checkpoint directory: %w", err)
	}
	base := filepath.Join(own, baseName)
	if err := os.Remove(base); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("link pages image: %w", err)
	}
	if err := os.Link(ImagePath(dir), base); err != nil {
		return fmt.Errorf("link pages image: %w", err)
	}
	return nil
}

// validate checks what making open files and compiling rely on.
func (r *ReadySpec) validate(s *Spec) error {
	if r == nil {
		return nil
	}
	if len(r.Objects)+1 != s.Parked || int(s.Pages) != len(r.Objects) {
		return fmt.Errorf("load checkpoint: %d objects for %d descriptors: %w", len(r.Objects), s.Parked, host.ErrCorrupt)
	}
	if len(r.Random) != 0 && len(r.Random) != len(s.Processes) {
		return fmt.Errorf("load checkpoint: random state of %d processes: %w", len(r.Random), host.ErrCorrupt)
	}
	for i := range r.Random {
		private, code := s.Processes[i].ranges()
		if err := r.Random[i].Validate(private, code); err != nil {
			return fmt.Errorf("load checkpoint: process %d: %w", s.Processes[i].PID, err)
		}
	}
	return object.Validate(r.Objects)
}

// ranges are the memory of a process that only it writes, and what it can
// execute.
func (p *ProcessSpec) ranges() (private, code []unique.Range) {
	for i := range p.VMAs {
		v := &p.VMAs[i]
		if v.Kind != VMAShared && v.Kind != VMASysV && v.Kind != VMASpecial {
			private = append(private, unique.Range{Start: v.Start, End: v.End})
		}
		if v.Prot&proc.ProtExec != 0 {
			code = append(code, unique.Range{Start: v.Start, End: v.End})
		}
	}
	return private, code
}

// ResetPeers names, for people, the peers whose connections a restore loses.
func (r *ReadySpec) ResetPeers() []string {
	var peers []string
	for i := range r.Objects {
		if s := r.Objects[i].Socket; s != nil && s.Reset != "" && r.Objects[i].Same < 0 {
			peers = append(peers, s.Reset)
		}
	}
	return peers
}

// Shared names, for people, the random state that all instances have in common.
func (r *ReadySpec) Shared() []string {
	var shared []string
	for _, s := range r.Random {
		for _, words := range s.Shared {
			if !slices.Contains(shared, words) {
				shared = append(shared, words)
			}
		}
	}
	return shared
}

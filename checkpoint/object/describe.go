package object

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"torpor/host"
	"torpor/kernel/openfile"
)

// Container is where open files are described or made.
type Container struct {
	// PID is the host pid of a process in all of the container's namespaces, its
	// init. Descriptors 0, 1 and 2 are the container's standard streams.
	PID int
}

// Use says what an open file is used for.
type Use string

// The uses of an Open.
const (
	UseDescriptor Use = "descriptor"
	UseMapped     Use = "mapped"
	UseExecutable Use = "executable"
	UseDirectory  Use = "directory" // current or root directory, opened with O_PATH
)

// Open is an open file of a stopped process.
type Open struct {
	FD          int // duplicate in this process, or opened by map_files, exe or cwd; the caller's
	PID, Number int // of UseDescriptor: the host pid of a process that has it and its number there
	Use         Use
	Target      string // as the link /proc/PID/fd/N, or the like, says
}

// where says, for messages, who has it.
func (o *Open) where() string {
	switch o.Use {
	case UseDescriptor:
		return fmt.Sprintf("(descriptor %d of process %d)", o.Number, o.PID)
	case UseMapped:
		return "(mapped)"
	case UseExecutable:
		return "(the program of a process)"
	}
	return "(the directory of a process)"
}

// describer is one Describe in progress.
type describer struct {
	container Container
	dir       string
	open      []Open
	specs     []Spec
	stats     []syscall.Stat_t
	root      *openfile.Root
	streams   standardStreams
	contents  contents
	pipes     map[openfile.Identity]int // IDs
	sockets   []int                     // indexes of Specs
	reasons   []string
}

// keptFlags are those of F_GETFL that a Spec has.
const keptFlags = syscall.O_ACCMODE | syscall.O_APPEND | syscall.O_NONBLOCK | syscall.O_SYNC | syscall.O_DSYNC | syscall.O_ASYNC |
	syscall.O_DIRECTORY | syscall.O_NOFOLLOW | openfile.OpenDirect | openfile.OpenNoATime | openfile.OpenPath

// Describe returns one Spec for each Open, in order. Contents are written into
// dir, which is the caller's to sync, as content-N. The processes must be
// stopped. What can not be described comes back as one *host.Refusal that names
// all of it.
func Describe(c Container, dir string, open []Open) ([]Spec, error) {
	d := &describer{container: c, dir: dir, open: open, specs: make([]Spec, len(open)), stats: make([]syscall.Stat_t, len(open)),
		contents: contents{ids: map[openfile.Identity]int{}}, pipes: map[openfile.Identity]int{}}
	var err error
	if d.root, err = openfile.OpenRoot(c.PID); err != nil {
		return nil, err
	}
	defer d.root.Close()
	if d.streams, err = openStreams(c); err != nil {
		return nil, err
	}
	defer d.streams.close()
	if err := d.run(); err != nil && !errors.Is(err, errTooMuch) {
		return nil, err
	}
	if len(d.reasons) > 0 {
		return nil, &host.Refusal{Reasons: d.reasons}
	}
	return d.specs, nil
}

func (d *describer) run() error {
	if err := d.findSame(); err != nil {
		return err
	}
	for i := range d.specs {
		describe := d.describe
		if d.specs[i].Same >= 0 {
			describe = d.describeLocks // a process may hold one by any of its descriptors
		}
		if err := describe(i); err != nil {
			return fmt.Errorf("describe %s %s: %w", d.open[i].Target, d.open[i].where(), err)
		}
	}
	if err := d.lonePipes(); err != nil {
		return err
	}
	if err := d.describeSockets(); err != nil {
		return err
	}
	d.repeat()
	return nil
}

// refuse notes why an Open can not be described.
func (d *describer) refuse(i int, what string, args ...any) {
	d.reasons = append(d.reasons, fmt.Sprintf(what, args...)+" "+d.open[i].where())
}

// findSame finds out which are the same open file, also as a standard stream.
func (d *describer) findSame() error {
	fds := append([]int{}, d.streams.fds[:]...)
	for i := range d.open {
		fds = append(fds, d.open[i].FD)
	}
	first, err := openfile.Same(fds)
	if errors.Is(err, syscall.ENOSYS) {
		return &host.Refusal{Reasons: []string{"open files can not be told apart: the kernel lacks kcmp"}}
	}
	if err != nil {
		return err
	}
	seen := map[int]int{}
	for i := range d.open {
		group := first[i+len(d.streams.fds)]
		d.specs[i].Same = -1
		if earlier, ok := seen[group]; ok {
			d.specs[i].Same = earlier
			continue
		}
		seen[group] = i
		if group < len(d.streams.fds) {
			d.specs[i].Kind, d.specs[i].Standard = KindStandard, group
		}
	}
	return nil
}

// repeat gives the Specs of the same open file its kind and flags, for readers.
func (d *describer) repeat() {
	for i := range d.specs {
		if same := d.specs[i].Same; same >= 0 {
			d.specs[i].Kind, d.specs[i].Flags = d.specs[same].Kind, d.specs[same].Flags
		}
	}
}

// refusedSystems are file systems whose files can not be made again.
var refusedSystems = map[openfile.FileSystem]string{
	openfile.Pidfs:     "a pidfd",
	openfile.Mqueue:    "a POSIX message queue",
	openfile.Secretmem: "secret memory",
	openfile.Hugetlbfs: "huge pages of hugetlbfs",
}

// describe describes the first of those that are the same open file, but for
// sockets, whose turn comes when all are known.
func (d *describer) describe(i int) error {
	o, s := &d.open[i], &d.specs[i]
	if err := syscall.Fstat(o.FD, &d.stats[i]); err != nil {
		return err
	}
	flags, err := openfile.Flags(o.FD)
	if err != nil {
		return err
	}
	s.Flags = flags & keptFlags
	if s.Signal, err = openfile.Signal(o.FD); err != nil {
		return err
	}
	if s.Kind == KindStandard {
		return nil
	}
	if err := d.describeLocks(i); err != nil {
		return err
	}
	if strings.HasPrefix(o.Target, "anon_inode:") {
		return d.describeAnonymous(i)
	}
	system, err := openfile.FileSystemOf(o.FD)
	if err != nil {
		return err
	}
	if what, ok := refusedSystems[system]; ok {
		d.refuse(i, "%s", what)
		return nil
	}
	if system == openfile.Nsfs {
		return d.describeNamespace(i)
	}
	switch d.stats[i].Mode & syscall.S_IFMT {
	case syscall.S_IFSOCK:
		d.sockets = append(d.sockets, i)
		return nil
	case syscall.S_IFIFO:
		if strings.HasPrefix(o.Target, "pipe:[") {
			return d.describePipe(i)
		}
	}
	return d.describeFile(i, system)
}

// Namespaces that a Spec can name.
var namespaces = []string{"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"}

func (d *describer) describeNamespace(i int) error {
	for _, name := range namespaces {
		var st syscall.Stat_t
		err := syscall.Stat(fmt.Sprintf("/proc/%d/ns/%s", d.container.PID, name), &st)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if openfile.IdentityOf(&st) == openfile.IdentityOf(&d.stats[i]) {
			d.specs[i].Kind, d.specs[i].Name = KindNamespace, name
			return nil
		}
	}
	d.refuse(i, "the namespace %s, which is not the container's", d.open[i].Target)
	return nil
}

func (m *maker) makeNamespace(s *Spec) (int, error) {
	return openHost(fmt.Sprintf("/proc/%d/ns/%s", m.container.PID, s.Name), syscall.O_RDONLY)
}

// describeLocks notes the locks of an open file, and refuses those that belong
// to a process or that others wait for.
func (d *describer) describeLocks(i int) error {
	o, s := &d.open[i], &d.specs[i]
	pid, number := os.Getpid(), o.FD
	if o.Use == UseDescriptor {
		pid, number = o.PID, o.Number
	}
	info, err := openfile.ReadInfo(pid, number)
	if err != nil {
		return err
	}
	locks, err := info.Locks()
	if err != nil {
		return err
	}
	for _, l := range locks {
		switch {
		case l.Kind == openfile.LockPOSIX:
			d.refuse(i, "a record lock on %s", o.Target)
		case s.Same >= 0: // noted with the first
		case l.Kind == openfile.LockFlock && l.Write:
			s.FlockMode = syscall.LOCK_EX
		case l.Kind == openfile.LockFlock:
			s.FlockMode = syscall.LOCK_SH
		case l.Kind == openfile.LockRange:
			s.Ranges = append(s.Ranges, RangeSpec{Start: l.Start, End: l.End, Write: l.Write})
		case l.Kind == openfile.LockLease:
			d.refuse(i, "a lease on %s", o.Target)
		default:
			d.refuse(i, "a lock of kind %s on %s", l.Kind, o.Target)
		}
	}
	return nil
}

// lock takes the locks of an open file again.
func (s *Spec) lock(fd int) error {
	if s.FlockMode != 0 {
		if err := openfile.Take(fd, openfile.Lock{Kind: openfile.LockFlock, Write: s.FlockMode == syscall.LOCK_EX}); err != nil {
			return err
		}
	}
	for _, r := range s.Ranges {
		if err := openfile.Take(fd, openfile.Lock{Kind: openfile.LockRange, Write: r.Write, Start: r.Start, End: r.End}); err != nil {
			return err
		}
	}
	return nil
}
